"""What a policy means, where it is not simply what stands there; written apart from the controller's own reading."""

import math
import re
from collections.abc import Callable
from typing import Any

from tests.sim.selectors import check

_PERCENT = re.compile(r"(100|[0-9]{1,2})%")
_RESOURCE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./*]*[A-Za-z0-9*])?")
Rule = Callable[[Any], bool]


def step(policy: dict[str, Any], name: str) -> dict[str, Any]:
    """A step's settings; a value that is no object at all, which no schema would let in, is none."""
    found = policy.get(name)
    return found if isinstance(found, dict) else {}


def scaled(limit: int | str, total: int) -> int:
    """A cap in nodes: percentages are rounded up."""
    return limit if isinstance(limit, int) else math.ceil(int(limit.rstrip("%")) * total / 100)


def valid(policy: dict[str, Any]) -> bool:
    """Whether a policy can be understood: what no schema would let in, or no parser of selectors, cannot.

    A field of the policy that is null is absent; a null further in gets past no schema.
    """
    given = {name: value for name, value in policy.items() if value is not None}
    steps = [(given[name], {**SELECTOR, **fields}) for name, fields in STEPS.items() if name in given]
    return _shaped(given, FIELDS) and all(isinstance(values, dict) and _shaped(values, rules) for values, rules in steps)


def _shaped(values: dict[str, Any], rules: dict[str, Rule]) -> bool:
    return all(rule(values[name]) for name, rule in rules.items() if name in values)


def _within(low: int, high: int) -> Rule:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _switch(value: object) -> bool:
    return isinstance(value, bool)


def _cap(limit: object) -> bool:
    return _PERCENT.fullmatch(limit) is not None if isinstance(limit, str) else _within(0, 1 << 62)(limit)


def _selector(value: object) -> bool:
    if not isinstance(value, str) or len(value) > 1024:
        return False
    try:
        check(value)
    except ValueError:
        return False
    return True


def _resources(value: object) -> bool:
    if not isinstance(value, list) or len(value) > 64:
        return False
    return all(isinstance(name, str) and len(name) <= 317 and _RESOURCE.fullmatch(name) is not None for name in value)


FIELDS: dict[str, Rule] = {
    "autoUpgrade": _switch,
    "paused": _switch,
    "maxParallelUpgrades": _within(0, 100_000),
    "failureThreshold": _within(1, 100_000),
    "maxUnavailable": _cap,
    "cordonedNodes": lambda value: value in ("Upgrade", "Skip"),
}
SELECTOR: dict[str, Rule] = {"podSelector": _selector, "timeoutSeconds": _within(0, 604_800)}
STEPS: dict[str, dict[str, Rule]] = {
    "waitForCompletion": {},
    "podDeletion": {"force": _switch, "deleteEmptyDir": _switch, "resourceNames": _resources},
    "drain": {
        "enable": _switch,
        "force": _switch,
        "deleteEmptyDir": _switch,
        "gracePeriodSeconds": _within(-1, 604_800),
    },
    "podRestart": {
        "maxRestarts": _within(0, 1000),
        "unchangedEnv": lambda value: isinstance(value, str) and len(value) <= 253,
    },
    "validation": {},
}
