"""Judges the controller from outside, in simulated and in real clusters: see :mod:`tests.checker.checker`."""

from tests.checker.checker import Checker
from tests.checker.events import Event, Subject

__all__ = ["Checker", "Event", "Subject"]
