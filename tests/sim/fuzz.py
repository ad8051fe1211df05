"""A policy's fields to their least, their most, nothing, nonsense, and away, while upgrades are under way."""

import random
from typing import TYPE_CHECKING, Any

from tests.sim.world import POLICY

if TYPE_CHECKING:
    from tests.sim.world import World

GONE = object()
_SECONDS = (0, 1, 604_800, -1, 604_801, "5", None, GONE)
_SELECTORS = ("", "app=w0", "a in ((", "a" * 70_000, "=,=", 7, None, GONE)
FIELDS: dict[tuple[str, ...], tuple[object, ...]] = {
    ("maxParallelUpgrades",): (0, 1, 100_000, -1, 100_001, "1", 1.5, None, GONE),
    ("maxUnavailable",): (0, 1, "0%", "100%", "101%", "-1%", "many", "", -1, None, GONE),
    ("failureThreshold",): (1, 100_000, 0, -1, "1", None, GONE),
    ("cordonedNodes",): ("Upgrade", "Skip", "", "upgrade", 3, None, GONE),
    ("paused",): (True, False, "true", None, GONE),
    ("waitForCompletion",): ({}, [], "x", None, GONE),
    ("waitForCompletion", "podSelector"): _SELECTORS,
    ("waitForCompletion", "timeoutSeconds"): _SECONDS,
    ("podDeletion",): ({}, [], "x", None, GONE),
    ("podDeletion", "podSelector"): _SELECTORS,
    ("podDeletion", "timeoutSeconds"): _SECONDS,
    ("podDeletion", "deleteEmptyDir"): (True, False, 1, None, GONE),
    ("drain",): ({}, [], "x", None, GONE),
    ("drain", "enable"): (True, False, "yes", None, GONE),
    ("drain", "podSelector"): _SELECTORS,
    ("drain", "timeoutSeconds"): _SECONDS,
    ("drain", "gracePeriodSeconds"): (-1, 0, 1, 2**40, -2, "1", None, GONE),
    ("podRestart",): ({}, [], "x", None, GONE),
    ("podRestart", "timeoutSeconds"): _SECONDS,
    ("podRestart", "maxRestarts"): (0, 1, -1, 2**40, "1", None, GONE),
    ("podRestart", "unchangedEnv"): ("", "CONFIG", "\x00", 1, None, GONE),
    ("validation",): ({}, [], "yes", None, GONE),
    ("validation", "podSelector"): _SELECTORS,
    ("validation", "timeoutSeconds"): _SECONDS,
}
"""What stories draw from: whoever adds a field here makes every one of them another."""
_FLAG = (True, False, "yes", None, GONE)
ALL_FIELDS = FIELDS | {
    ("autoUpgrade",): (False, True, "true", None, GONE),
    ("podDeletion", "resourceNames"): ([], ["nvidia.com/*"], ["*"], [""], "x", [7], None, GONE),
    ("podDeletion", "force"): _FLAG,
    ("drain", "force"): _FLAG,
    ("drain", "deleteEmptyDir"): _FLAG,
}


class Fuzzer:
    """Changes one field after the other, each for a while."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self._world = world
        self._rng = rng

    def change(self) -> str:
        """Change one field, from what the plan says; returns what was done."""
        path = self._rng.choice(list(FIELDS))
        value = self._rng.choice(FIELDS[path])
        return self.set(path, value)

    def set(self, path: tuple[str, ...], value: object) -> str:
        """Set one field of the plan's policy to a value."""
        if self._world.server.get("driverupgradepolicies", POLICY) is None:
            return "no policy to fuzz"
        policy: dict[str, Any] = dict(self._world.plan.policy)
        inner = policy
        if len(path) > 1:
            inner = policy[path[0]] = dict(policy.get(path[0]) or {})
        if value is GONE:
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = value
        self._replace(policy)
        return f"policy {'.'.join(path)}={'(gone)' if value is GONE else repr(value)[:40]}"

    def _replace(self, policy: dict[str, Any]) -> None:
        self._world.server.edit("admin", "driverupgradepolicies", POLICY, ("spec", "driver", "upgradePolicy"), policy)

    def restore(self) -> None:
        """The plan's policy again."""
        self._replace(self._world.plan.policy)
