"""What the pages tell people to type exists: every command of ours that they show, with every flag."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from controller.cli.main import main

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SHOWN = re.compile(r"(?:^ {4}(?:\$ )?|^(?:  )?|`)driver-upgrade ([^`\n]+)", re.MULTILINE)
COMMAND = re.compile(r"[a-z]+(?:-[a-z]+)*\b")
SUBSHELL = re.compile(r"\$\(.*?\)")
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def shown(page: Path) -> Iterator[tuple[str, str]]:
    """The commands on a page: name, and the rest of the line; what only begins a sentence has no name."""
    for line in SHOWN.findall(page.read_text().replace("\\\n", " ")):
        if COMMAND.fullmatch(line.split()[0]):
            name, rest = line.split()[0], line.removeprefix(line.split()[0])
            yield name, SUBSHELL.sub("", rest).partition(" | ")[0].partition(" #")[0]


def flags(name: str) -> set[str]:
    """The flags of a command."""
    # With its settings: click keeps a command's help option as it was first asked for, for other tests, too.
    with click.Context(main, **main.context_settings) as context:
        command = main.get_command(context, name)
        assert command is not None, f"there is no command {name}"
        return {flag for each in command.get_params(context) for flag in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("page", [p for p in PAGES if any(shown(p))], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_exists_with_its_flags(page: Path) -> None:
    unknown = [f"{name} {flag}" for name, rest in shown(page) for flag in FLAG.findall(rest) if flag not in flags(name)]
    assert not unknown
