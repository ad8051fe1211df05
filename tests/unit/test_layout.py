"""Rules of the tree that no linter knows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 500
SOURCES = sorted(p for folder in ("controller", "tools", "tests") for p in (ROOT / folder).rglob("*.py"))
IMPORT = re.compile(r"""^\s*(from|import)\s+kubernetes_asyncio|["']kubernetes_asyncio["']\s*$|_import\(""", re.MULTILINE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_is_one_room_too_many(path: Path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_kubernetes_asyncio_is_imported_in_one_module():
    """The import-linter cannot see an import by importlib, which config.py uses to leave most of the package out."""
    users = {relative(p) for p in SOURCES if relative(p).startswith("controller") and IMPORT.search(p.read_text())}
    assert users == {"controller/kube/config.py"}


def test_no_markdown_link_leads_nowhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = ((page, m[1]) for page in pages for m in re.finditer(r"\]\((?!https?:)([^)#]+)", page.read_text()))
    assert [f"{relative(page)}: {link}" for page, link in links if not (page.parent / link).exists()] == []
