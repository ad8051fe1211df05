"""When a policy's rollout began and when it will end, as its status tells it. What was told last is where it begins."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.api.meta import timestamp
from controller.upgrade.fleet import Tally
from controller.upgrade.pace import Progress, is_under_way, progress
from controller.upgrade.policy import Policy


class RolloutTimes:
    """What has been seen of one policy's rollouts. Times are server time in seconds."""

    def __init__(self) -> None:
        self._began: float | None = None
        self.passes: float | None = None
        """When the estimate that was told passes: it must not stand there as a promise that was not kept."""

    def look(self, policy: Policy, tally: Tally, now: float) -> None:
        """A node was counted: note when a rollout begins, which may be over before it is told."""
        if not is_under_way(policy, tally):
            self._began = None
        elif self._began is None:
            self._began = now

    def told(
        self, policy: Policy, tally: Tally, status: Mapping[str, Any], earlier: Mapping[str, Any], now: float
    ) -> dict[str, str]:
        """Return what a status says of the times; ``earlier`` is the status that was told last, also before a restart."""
        started, told = _seconds(earlier.get("startedAt")), _seconds(earlier.get("estimatedCompletion"))
        if started is not None and not _versions(status) <= _versions(earlier):
            self._began, started = now, None
        began = now if self._began is None else self._began
        before = Progress(began) if started is None else Progress(started, told)
        found = progress(policy, tally, before, now)
        self.passes = found.completion if found else None
        times = {"startedAt": timestamp(found.started), "estimatedCompletion": timestamp(found.completion)} if found else {}
        return {key: value for key, value in times.items() if value}


def _versions(status: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Return the driver versions that a status is about: where there is a new one, a new rollout begins."""
    return {(str(t.get("uid")), int(t.get("revision", 0))) for t in status.get("targets") or ()}


def _seconds(text: object) -> float | None:
    """Read a time that we wrote; what a person may have made of it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
