"""The lists of a policy's status: nodes in progress and failed, targets, what waiting nodes wait for. Pure and bounded.

An object in etcd must not outgrow 1.5 MiB however many nodes and pods there are, so there are bounds on everything: nodes,
blockers of a node, blockers in all, and words.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nlargest, nsmallest
from typing import Any

from controller.api.meta import timestamp
from controller.upgrade.actions import Decision
from controller.upgrade.admission import waiting_by_reason, waiting_example
from controller.upgrade.fleet import Tally
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import PASSING, Blocker, Reason
from controller.upgrade.record import Record
from controller.upgrade.states import IN_PROGRESS, State

MAX_NODES = 100
MAX_BLOCKERS = 10
MAX_BLOCKERS_IN_ALL = 200
"""Beyond this a node still shows its first blocker."""
MAX_WORDS = 256
MAX_TARGETS = 32

Item = dict[str, Any]


def active_names(tally: Tally) -> list[str]:
    """Return the nodes in progress that are listed: those that have been in their state for longest."""
    dates = ((at, name) for state in IN_PROGRESS for name, at in tally.since.get(state, {}).items())
    return [name for _, name in nsmallest(MAX_NODES, dates)]


def failed_names(tally: Tally) -> list[str]:
    """Return the failed nodes that are listed: the latest."""
    dates = ((at, name) for name, at in tally.since.get(State.UPGRADE_FAILED, {}).items())
    return [name for _, name in nlargest(MAX_NODES, dates)]


def active_item(name: str, record: Record, decision: Decision | None) -> Item:
    """Describe a node in progress; ``decision`` is the last about it, None where there is none since the restart."""
    item: Item = {"node": name, "state": str(record.state), "since": timestamp(record.since)}
    if decision is not None and decision.state is record.state:
        item |= {"deadline": timestamp(decision.deadline), "reason": str(decision.reason or "")}
        item |= {
            "message": decision.message[:MAX_WORDS],
            "blockers": [_blocker(b) for b in decision.blockers[:MAX_BLOCKERS]],
        }
    return _full(item)


def failed_item(name: str, record: Record) -> Item:
    """Describe a failed node by its record."""
    failure = record.failure
    return _full(
        {
            "node": name,
            "state": str(failure.state if failure else State.UPGRADE_FAILED),
            "since": timestamp(record.since),
            "reason": str(failure.reason if failure else Reason.FAILED),
            "message": failure.message[:MAX_WORDS] if failure else "",
        }
    )


def bounded(items: Iterable[Item]) -> list[Item]:
    """Return the items with no more blockers in all than an object may hold."""
    left, found = MAX_BLOCKERS_IN_ALL, []
    for item in items:
        if blockers := item.get("blockers"):
            item = {**item, "blockers": blockers[: max(1, min(len(blockers), left))]}  # noqa: PLW2901
            left -= len(item["blockers"])
        found.append(item)
    return found


def waiting(policy: Policy, tally: Tally) -> list[Item]:
    """Return why nodes wait that have not been granted, each with their number and the name of one."""
    counts = sorted(waiting_by_reason(policy, tally).items())
    return [_full({"reason": str(r), "nodes": n, "example": waiting_example(policy, tally, r)}) for r, n in counts]


def targets(tally: Tally, known: Mapping[str, tuple[str, str]]) -> list[Item]:
    """Return what nodes are upgraded to; ``known`` is the name and the newest hash of each DaemonSet, by uid."""
    return list(_targets(tally, known))[:MAX_TARGETS]


def _targets(tally: Tally, known: Mapping[str, tuple[str, str]]) -> Iterator[Item]:
    for target, nodes in sorted(tally.targets.items()):
        uid, _, revision = target.rpartition("@")
        if uid in known and revision.isdigit():
            name, found = known[uid]
            item = {"daemonSet": name, "uid": uid, "revision": int(revision), "hash": found, "nodes": nodes}
            yield _full({**item, "upToDate": tally.current[target]})


def waiting_for(policy: Policy, tally: Tally, active: Sequence[Item]) -> str:
    """Return the one reason most worth a column: what holds up active nodes, else what holds up most others."""
    held = [str(item["reason"]) for item in active if item.get("reason") and Reason(item["reason"]) not in PASSING]
    if held:
        return max(sorted(set(held)), key=held.count)
    if active:
        return ""
    counts = {reason: n for reason, n in waiting_by_reason(policy, tally).items() if reason not in PASSING}
    return str(max(sorted(counts), key=lambda r: counts[r])) if counts else ""


def _blocker(blocker: Blocker) -> Item:
    item = {"reason": str(blocker.reason), "namespace": blocker.namespace, "name": blocker.name}
    times = {"since": timestamp(blocker.since), "until": timestamp(blocker.until)}
    return _full({**item, "message": blocker.message[:MAX_WORDS], **times})


def _full(item: Item) -> Item:
    """Leave out what is empty; 0 is not."""
    return {key: value for key, value in item.items() if value not in ("", [], None)}
