"""What `status` draws of a policy: beside its counts, why nodes do not move and how many do not for each reason."""

import pytest
from msgspec.structs import replace

from controller.cli.tables import show, status_tables
from controller.upgrade.survey import PolicySurvey

ROLLING = PolicySurvey("P/ns/gpu", "gpu", 6, 0, 2, 4, 0, 2, 2, "Upgrading")


def drawn(found: PolicySurvey, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The head and the row of the policies' table."""
    show(status_tables([found], [], 0.0, wide=False))
    head, line = capsys.readouterr().out.splitlines()
    return head, line


def test_reasons_are_shown_with_their_counts(capsys: pytest.CaptureFixture[str]):
    held = ({"reason": "NoSlot", "nodes": 3, "example": "n1"}, {"reason": "Skipped", "nodes": 1, "example": "n2"})
    head, line = drawn(replace(ROLLING, blocked=held), capsys)
    at = head.index("BLOCKED")
    assert line[at:].split("  ")[0] == "3 NoSlot, 1 Skipped"
    assert line[head.index("CONDITION") :] == "Upgrading"


def test_where_all_move_nothing_is_shown(capsys: pytest.CaptureFixture[str]):
    head, line = drawn(ROLLING, capsys)
    assert line[head.index("BLOCKED") :].split() == ["Upgrading"]
