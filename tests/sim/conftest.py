"""What the simulator's tests say at their end: how many crashes were played."""

import pytest

CRASHES = "crashes"
"""The property in which a test notes how many it has played."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add them up."""
    reports = terminalreporter.getreports("passed")
    played = [int(str(value)) for report in reports for name, value in report.user_properties if name == CRASHES]
    if played:
        terminalreporter.write_line(
            f"{sum(played)} single crashes played, each at a write of its own or at another moment of it"
        )
