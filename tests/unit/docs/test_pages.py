"""The pages and the code say the same: every reason has its section, every edge its arrow, every link its end."""

import re
from pathlib import Path

import pytest

from controller.upgrade.reasons import Reason
from controller.upgrade.states import EDGES, State

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
ARROW = re.compile(r"^\s+(\w+|\[\*\]) --> (\w+|\[\*\])", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def test_every_reason_has_its_section_in_troubleshooting() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    sections = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert sorted(sections) == sorted(Reason)


def test_the_diagram_has_every_edge_and_no_other() -> None:
    def state(name: str) -> State:
        return State.UNKNOWN if name == "[*]" else State(name.replace("_", "-"))

    drawn = [(state(old), state(new)) for old, new in ARROW.findall((DOCS / "states.md").read_text())]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) == {(old, new) for old, followers in EDGES.items() for new in followers}


def test_every_state_has_its_row() -> None:
    rows = re.findall(r"^\| `(upgrade-\w+|[\w-]+-required)` \|", (DOCS / "states.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(state for state in State if state)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(FENCED.sub("", page.read_text())) if not leads_somewhere(page, link)]
    assert not broken


def leads_somewhere(page: Path, link: str) -> bool:
    """Links to other sites are not followed."""
    if "://" in link or link.startswith("mailto:"):
        return True
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not target.exists():
        return False
    return not anchor or anchor in {slug(heading) for heading in HEADING.findall(FENCED.sub("", target.read_text()))}


def slug(heading: str) -> str:
    """The anchor that forges make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")
