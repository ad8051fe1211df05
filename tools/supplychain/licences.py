"""Writes docs/licences.md: the licence of every package that the image has, and what each asks of who passes it on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tools.supplychain import lock

PAGE: Final = lock.ROOT / "docs" / "licences.md"
PERMISSIVE: Final = frozenset(
    {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0", "Python-2.0", "0BSD", "Unlicense"}
)
SPELLINGS: Final = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
}
"""What packages declare that have not taken up SPDX identifiers."""
WEAK_COPYLEFT: Final[Mapping[str, str]] = {
    "certifi": "a list of certificate authorities",
    "orjson": "parts of its Rust code",
}
"""Packages with files under MPL-2.0, by name: it asks that changes of those files be published, and we change none."""
HEAD: Final = """\
# Licences

What runs in the image beside the controller itself, which is under the Apache License 2.0. Written by `make licences` from
`requirements.lock` and each package's own metadata; `make test` holds the page to them.

All are permissive but for {weak}, which have files under MPL-2.0 ({what}).
That licence asks who passes *changed* files on to publish the change, and nothing of the rest; the image has them unchanged.

| package | version | licence |
|---|---|---|
"""


class LicenceError(RuntimeError):
    """A package has a licence that was not agreed to, or none; the message names it."""


def rows(found: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The table: name, version, SPDX expression, by name.

    Raises:
        LicenceError: A licence is not permissive, and not among the exceptions.
    """
    made = sorted((name, version, SPELLINGS.get(licence, licence)) for name, version, licence in found)
    for name, _, licence in made:
        allowed = PERMISSIVE | {"MPL-2.0"} if name in WEAK_COPYLEFT else PERMISSIVE
        if foreign := _identifiers(licence) - allowed:
            named = ", ".join(sorted(foreign)) or "no licence"
            raise LicenceError(f"{name} is under {named}: do without it, or agree to it in tools/supplychain/licences.py")
        if not licence:
            raise LicenceError(f"{name} declares no licence: do without it")
    return made


def render(found: Iterable[tuple[str, str, str]]) -> str:
    """The page."""
    what = ", ".join(f"{name}: {text}" for name, text in WEAK_COPYLEFT.items())
    head = HEAD.format(weak=" and ".join(WEAK_COPYLEFT), what=what)
    return head + "".join(f"| {name} | {version} | {licence} |\n" for name, version, licence in rows(found))


def listed(page: Path = PAGE) -> dict[str, tuple[str, str]]:
    """Version and licence by name, as the page has them."""
    cells = [
        line.strip("|\n ").split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    return {name: (version, licence) for name, version, licence in cells[1:]}


def _identifiers(expression: str) -> set[str]:
    """The licences of an SPDX expression, whichever way it joins them: all must be agreeable."""
    words = expression.replace("(", " ").replace(")", " ").split()
    return {word for word in words if word not in {"AND", "OR", "WITH"}}
