"""Whose cordon is it? A node's cordon may be claimed by several drivers; the last of them lifts it, and no other's (S5)."""

import math
from typing import TYPE_CHECKING

from tests.checker.events import Event, Obj
from tests.checker.names import cordoned
from tests.sim.objects import annotations

if TYPE_CHECKING:
    from tests.checker.checker import Checker
    from tests.checker.judge import Judge
    from tests.checker.names import Names

OURS, OTHER = "ours", "other"


class Cordons:
    """Remembers who cordoned each node last."""

    def __init__(self, checker: "Checker") -> None:
        self._checker = checker
        self._names = [judge.names for judge in checker.judges]
        self._by: dict[str, str] = {}
        self._lifted: dict[str, tuple[float, str]] = {}

    def by(self, node: str) -> str:
        """``ours`` or ``other``."""
        return self._by.get(node, OTHER)

    def kept(self, node: Obj | None) -> bool:
        """Whether a cordon is to stay at the end."""
        return any(names.keep in annotations(node) for names in self._names) if node else False

    def claimed(self, node: Obj | None) -> bool:
        return any(names.claims(node) for names in self._names)

    def remember(self, entry: Event) -> None:
        """Take in one change of a node."""
        if entry.new is None:
            self._by.pop(entry.key, None)
            return
        self._whose(entry, entry.new)
        if entry.ours and cordoned(entry.old) and cordoned(entry.new) and self.kept(entry.old) and not self.kept(entry.new):
            self._by[entry.key] = OTHER  # it was asked to stay, by whomever it was

    def _whose(self, entry: Event, new: Obj) -> None:
        """Who cordoned last. Lifted and set again before we could see it, or while we must not touch it, is not news."""
        name = entry.key
        if entry.ours and any(self._taken_over(names, entry.old, new) for names in self._names):
            self._by[name] = OURS  # taken over from the peer, which leaves no record
        lost = any(n.claims(entry.old) and not n.record(new) for n in self._names) and not self.claimed(new)
        if not entry.ours and lost:
            self._by[name] = OTHER  # the claim went with the record: nobody can know
        if cordoned(entry.old) and not cordoned(new):
            self._lifted[name] = (entry.at, self.by(name))
        elif cordoned(new) and not cordoned(entry.old):
            at, owner = self._lifted.get(name, (-math.inf, OTHER))
            foreign_label = all(judge.foreign_label(new) for judge in self._checker.judges)
            unseen = entry.at - at < entry.sent - self._checker.since(entry) + 1.0 or foreign_label
            self._by[name] = OURS if entry.ours else owner if unseen and self.claimed(new) else OTHER

    @staticmethod
    def _taken_over(names: "Names", old: Obj | None, new: Obj) -> bool:
        return not names.any_record(old) and names.claims(new) and names.keep not in annotations(new)

    def lifted(self, entry: Event, old: Obj, new: Obj, since: float, concerned: "list[Judge]") -> None:
        """Judge one of our PATCHes that made a node schedulable."""
        name = entry.key
        if self.by(name) == OTHER:
            self._checker.violate("S5", name, "lifted a cordon that is not ours")
        # Another driver's key 5 is about that one's next upgrade: it says nothing of a cordon that this one set.
        if any(j.names.keep in annotations(old) for j in concerned):
            self._checker.violate("S5", name, "lifted a cordon that was to be kept")
        if self.claimed(new):
            self._checker.violate("S5", name, "lifted a cordon that another driver still claims")
        due = [j for j in concerned if j.names.state(old) == "uncordon-required" or j.putbacks.due(entry, old, since)]
        if not due:
            states = [j.names.state(old) or "unknown" for j in concerned]
            self._checker.violate("S5", name, f"uncordoned in {', '.join(states) or 'no state of ours'}")
