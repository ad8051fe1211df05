"""An explanation as people read it: short, and with everything where they ask for it."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from controller.cli import explain
from controller.cli.explain import MOST_NAMES, lines
from controller.cli.main import main
from controller.upgrade.explain import Explanation
from controller.upgrade.reasons import Blocker, Reason

PODS = [f"web-{number}" for number in range(MOST_NAMES + 3)]
NODES = tuple(f"node-{number}" for number in range(MOST_NAMES + 3))
FOUND = Explanation(
    node="n1",
    driver="gpu",
    state="drain-required",
    target="ds@2",
    reason=Reason.POD_DISRUPTION_BUDGET,
    blockers=tuple(Blocker(Reason.POD_DISRUPTION_BUDGET, "work", name, "needs 12, has 12") for name in PODS),
    holders=NODES,
)


def said(*, wide: bool) -> str:
    return "\n".join(lines(FOUND, 0.0, wide=wide))


def test_of_many_pods_and_nodes_the_first_are_named():
    text = said(wide=False)
    assert text.count("work/web-") == text.count("node-") == MOST_NAMES
    assert text.count("and 3 more") == 2
    assert "ds@2" not in text


def test_wide_names_all_and_the_target():
    text = said(wide=True)
    assert all(f"work/{name}" in text for name in PODS)
    assert all(name in text for name in NODES)
    assert "more" not in text
    assert "target     ds@2" in text


@pytest.mark.parametrize(("value", "coloured"), [("", True), ("1", False)])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, value: str, coloured: bool):
    """As tables do: by a value, and not by the empty one."""
    monkeypatch.setattr(explain, "with_client", lambda *_: SimpleNamespace(now=lambda: 0.0))
    monkeypatch.setattr(explain, "_explanations", lambda *_: [FOUND])
    answer = CliRunner().invoke(main, ["explain", "n1"], color=True, env={"NO_COLOR": value})
    assert answer.exit_code == 0
    assert ("\x1b[" in answer.output) == coloured
