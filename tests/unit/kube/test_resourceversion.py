"""resourceVersions are ordered as integers; those that are not integers lose no update."""

import pytest

from controller.kube.resourceversion import newer, surely_newer


@pytest.mark.parametrize(
    ("candidate", "held", "answer"),
    [
        ("10", "9", True),
        ("9", "10", False),
        ("9", "9", False),
        ("18446744073709551617", "9", True),
        ("x", "9", True),
        ("9", "x", True),
        ("x", "x", False),
        ("", "", False),
        ("\u0665", "9", True),
        ("-1", "9", True),
    ],
)
def test_newer(candidate: str, held: str, answer: bool) -> None:
    assert newer(candidate, held) is answer


@pytest.mark.parametrize(
    ("candidate", "held", "answer"),
    [("10", "9", True), ("9", "10", False), ("9", "9", False), ("x", "9", False), ("9", "x", False), ("", "9", False)],
)
def test_surely_newer(candidate: str, held: str, answer: bool) -> None:
    assert surely_newer(candidate, held) is answer
