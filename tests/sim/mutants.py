"""Defects put into the controller on purpose: the checker is worth what it notices.

A mutant names a function, a piece of its source, and what stands there instead. The function's code object is swapped in
place, so that everyone who has imported it is affected, and swapped back afterwards. Each mutant is run on the scene, or
the random world, that is meant to betray it; a leak in some weeks of a life.
"""

import contextlib
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from tests.sim import endurance
from tests.sim.harness import simulate
from tests.sim.mutations import MUTANTS, Edit
from tests.sim.scenes import scene
from tests.sim.world import Plan, random_plan

_SEEDS = 40
LIVES: dict[str, Callable[[], list[str]]] = {
    "weeks": endurance.complaints,
    "rest": endurance.at_rest,
}
"""What is judged by more than the checker."""
_RULE = re.compile(r"[SL]\d+")


class Verdict(NamedTuple):
    """What became of a mutant.

    ``violation`` is the first by what is meant to kill it, and ``where`` the run; both are empty where it lived. ``others``
    is what was seen of it meanwhile by rules that are not about it, which is no proof that the right one works.
    """

    where: str
    violation: str
    others: tuple[str, ...] = ()

    @property
    def killed(self) -> bool:
        return bool(self.violation)


def function(path: str) -> FunctionType:
    """Return the function that ``module:qualified.name`` means, through properties."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(f"controller.{module}")
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, cached_property):
        found = found.func
    elif isinstance(found, staticmethod):
        found = found.__func__
    assert isinstance(found, FunctionType), path
    return found


def _compiled(original: FunctionType, edits: list[tuple[str, str]]) -> CodeType:
    source = textwrap.dedent(inspect.getsource(original))
    for old, new in edits:
        if source.count(old) != 1:
            raise LookupError(f"{original.__qualname__} has {source.count(old)} times {old!r}: bring the mutant up to date")
        source = source.replace(old, new)
    lines = source.splitlines()
    while lines[0].lstrip().startswith("@"):
        del lines[0]
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), original.__globals__, namespace)
    code = namespace[original.__name__].__code__
    assert isinstance(code, CodeType)
    return code


def mutated(name: str) -> contextlib.AbstractContextManager[None]:
    """Put a mutant's defects in for a while."""
    return swapped(MUTANTS[name][2:])


@contextlib.contextmanager
def swapped(changes: Iterable[Edit]) -> Iterator[None]:
    """Put defects in for a while."""
    edits: dict[str, list[tuple[str, str]]] = {}
    for path, old, new in changes:
        edits.setdefault(path, []).append((old, new))
    compiled = [(target := function(path), _compiled(target, pairs)) for path, pairs in edits.items()]
    with contextlib.ExitStack() as stack:
        for target, code in compiled:
            stack.callback(setattr, target, "__code__", target.__code__)
            target.__code__ = code
        yield


def plans(where: str) -> Iterator[tuple[str, Plan]]:
    """A scene, with ``@n`` also killed at each of its first n writes; or random worlds with a kind of faults."""
    if where.startswith("any "):
        kind = where.removeprefix("any ")
        for seed in range(_SEEDS):
            yield f"{kind} {seed}", random_plan(seed, kind)
    elif where.startswith("seed "):
        _, kind, seed_text = where.split()
        yield where, random_plan(int(seed_text), kind)
    else:
        name, _, last = where.partition(" @")
        for index in range(int(last or 0) + 1):
            plan = scene(name)
            plan.crashes = {index: "committed"} if index else {}
            yield f"{name} @{index}", plan


def killing(killer: str, violations: list[str]) -> str:
    """The first of the violations that a mutant is to die of, if there is one of each kind; else nothing."""
    parts = killer.split() if _RULE.match(killer) else [killer]
    wanted = [f" {part} " if _RULE.fullmatch(part) else part for part in parts]
    found = [next((v for v in violations if text in v), "") for text in wanted]
    return found[0] if all(found) else ""


def hunt(name: str) -> Verdict:
    """Run a mutant where it is to be seen, until it dies of what is meant to kill it."""
    where, killer, *_ = MUTANTS[name]
    others: list[str] = []
    with mutated(name):
        for seen, violations in _runs(where):
            if violation := killing(killer, violations):
                return Verdict(seen, violation)
            others += violations[:3]
    return Verdict("", "", tuple(others))


def _runs(where: str) -> Iterator[tuple[str, list[str]]]:
    """Where it is to be seen, and what is wrong there."""
    if where in LIVES:
        yield where, LIVES[where]()
        return
    for seen, plan in plans(where):
        yield seen, simulate(plan).violations
