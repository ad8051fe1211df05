"""The defects that a controller on the real cluster may be run with: all of tests/sim, and some of its own."""

from collections.abc import Mapping, Sequence

from tests.sim.mutations import MUTANTS, Edit

_ELECTOR = "kube.leaderelection:LeaderElector."
_HELD_BY_ANOTHER = 'if self.leader not in ("", self._config.identity)'

HERE: Mapping[str, Sequence[Edit]] = {
    "it never learns that another one leads": (
        ("kube.writegate:WriteGate.check", "not self._leadership.is_leader", "False"),
        (_ELECTOR + "_attempt", "if self.is_leader:", "if self.is_leader and self.leader == self._config.identity:"),
        (
            _ELECTOR + "_attempt",
            'if self._clock() < self._rival_until:\n            self._renewed_at = float("-inf")\n            return False',
            _HELD_BY_ANOTHER + ":\n            self._renewed_at = self._clock()\n            return True",
        ),
    ),
    "a standby looks twice a minute": (
        (_ELECTOR + "_wait", "return max(SHORTEST_WAIT, min(wait, left)) if left > 0 else wait", "return 30.0"),
    ),
    "it takes a Lease that is held": ((_ELECTOR + "_attempt", "self._clock() < self._rival_until", "False"),),
    "it keeps the Lease when it ends": ((_ELECTOR + "run", "if answered and not lost:", "if False:"),),
    "no slot is ever free": (("upgrade.budget:free_slots", "max_parallel - in_progress", "0"),),
    "outdated drivers will do": (("upgrade.snapshot:NodeView.needs_upgrade", "bool(self.outdated) or", ""),),
    "the youngest policy has the node": (
        ("upgrade.assign:assign", "for policy in known:", "for policy in reversed(known):"),
    ),
}


def edits(name: str) -> Sequence[Edit]:
    """What to change for a defect.

    Raises:
        KeyError: there is none of this name.
    """
    return HERE[name] if name in HERE else MUTANTS[name][2:]
