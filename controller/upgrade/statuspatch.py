"""From the status that a policy had to the one that it shall have: the times of its conditions, and the patch. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from controller.api.meta import timestamp

Status = Mapping[str, Any]


def keep_times(conditions: list[dict[str, Any]], earlier: Iterable[Status], now: float, generation: int) -> None:
    """Give each condition the time of its last transition, and the generation that it was judged for."""
    before = {c.get("type"): c for c in earlier}
    for condition in conditions:
        last = before.get(condition["type"], {})
        same = last.get("status") == condition["status"]
        condition["lastTransitionTime"] = last.get("lastTransitionTime", timestamp(now)) if same else timestamp(now)
        condition["observedGeneration"] = generation


def replacing(status: Status, old: Status) -> dict[str, Any]:
    """Return a merge patch that leaves nothing of the old maps behind: keys that are gone are set to null."""
    patch: dict[str, Any] = {key: None for key in old if key not in status}
    for key, value in status.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            patch[key] = {**{k: None for k in before if k not in value}, **value}
        else:
            patch[key] = value
    return patch


def left_behind(status: Status, found: Status) -> frozenset[str]:
    """Return the keys, with their map's before a dot, that the server still has although the status does not."""
    patch = replacing(status, found)
    maps = {key: value for key, value in patch.items() if isinstance(value, Mapping)}
    inner = {f"{key}.{k}" for key, value in maps.items() for k, v in value.items() if v is None}
    return frozenset({key for key, value in patch.items() if value is None} | inner)
