"""One leader (S10) and a quick next one (L6), by the Lease as the API server has it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.checker.events import Event, Obj

if TYPE_CHECKING:
    from tests.checker.checker import Checker

RENEW_DEADLINE = 10.0
TAKE_OVER, HAND_OVER = 20.0, 3.0
"""Seconds from the last renewal, and from the release, until another replica holds the Lease."""
Standby = Callable[[float, float], float | None]


class Leaders:
    """Holds every write of ours against the Lease, if there is one."""

    def __init__(self, checker: "Checker", lease: str) -> None:
        self._checker = checker
        self._lease = lease
        self._holder = ""
        self._renewed = -math.inf
        self._released = -math.inf
        self._by = ""
        """Who held it last."""
        self._asked: set[str] = set()
        self.standby: Standby = lambda _begin, _end: None
        """Whether, between two moments, a replica stood by all the time with nothing wrong about it: how many seconds its
        machine has lost meanwhile, or None where there was none. Only the world knows."""

    def asked(self, holder: str) -> None:
        """A replica was asked to stop, and nothing keeps it from giving the Lease back."""
        self._asked.add(holder)

    def killed(self, holder: str) -> None:
        """It was killed, and gives nothing back."""
        self._asked.discard(holder)

    def renewed(self, entry: Event) -> None:
        """The Lease was written, or deleted."""
        if entry.key != self._lease or entry.code >= 400:
            return
        holder = _holder(entry.new)
        if entry.ours:
            if holder and holder != self._by and self._by:
                self._followed(entry, holder)
            self._renewed = entry.sent
            self._released = math.inf if holder else entry.at
            self._by = holder or self._by
        self._holder = holder

    def _followed(self, entry: Event, holder: str) -> None:
        """Another one leads: how long did nobody?"""
        given_back = self._released < math.inf
        since, most = (self._released, HAND_OVER) if given_back else (self._renewed, TAKE_OVER)
        if self._by in self._asked and not given_back:
            self._checker.violate("L6", "", f"{self._by} was asked to stop and did not give the Lease back")
        lost = self.standby(since, entry.at)
        if lost is not None and entry.at - since > most + lost:
            how = "gave the Lease back" if given_back else "renewed it last"
            self._checker.violate("L6", "", f"{holder} led {entry.at - since:.1f} s after {self._by} {how}")

    def wrote(self, entry: Event) -> None:
        """One write of ours that is not the Lease's."""
        if not self._lease or not entry.pod or entry.code >= 400:
            return
        if not self._holder.endswith(f"_{entry.pod}"):
            self._checker.violate("S10", "", f"{entry.actor} wrote {entry.key}, and the Lease is held by {self._holder!r}")
        elif entry.sent - self._checker.disorder > self._renewed + RENEW_DEADLINE:
            late = entry.sent - self._renewed
            self._checker.violate("S10", "", f"{entry.actor} wrote {entry.key} {late:.1f} s after its last renewal")


def _holder(lease: Obj | None) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
