"""Who may begin: one serial decision over all policies (design, section 4).

Three counters stay apart: slots (how many are being upgraded by us), room (how many may be unavailable, for whatever
cause) and failures (how many of one target failed, which halts it). A node that must not be granted never delays one that
may.
"""

import itertools
from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from controller.upgrade.actions import Decision
from controller.upgrade.budget import free_room, free_slots
from controller.upgrade.facts import Ask, Facts
from controller.upgrade.fleet import Group, Tally, group_of
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason


class Grants(msgspec.Struct, frozen=True):
    """Nodes that may go on now: failed ones to validation, others to cordon-required."""

    validations: tuple[str, ...] = ()
    upgrades: tuple[str, ...] = ()


def halted_targets(policy: Policy, tally: Tally) -> frozenset[str]:
    """Targets that failed on as many nodes as the threshold allows, and that some node is still to have.

    A target that a later one has replaced halts nothing, however many nodes failed for it that no DaemonSet wants now.
    """
    return frozenset(t for t, count in tally.failures.items() if count >= policy.failure_threshold and tally.targets[t])


def admit(policy: Policy, tally: Tally, taken: Iterable[str] = ()) -> Grants:
    """Give the free slots away.

    Validations of failed nodes come before all grants, also while paused or halted: their driver is already as it should
    be. ``taken`` are nodes on which another driver has just been granted.
    """
    slots = free_slots(policy.spec.max_parallel_upgrades, tally.in_progress)
    if not policy.usable or slots <= 0:
        return Grants()
    validations = _validations(tally, slots, frozenset(taken))
    slots -= len(validations)
    if not grants_new(policy) or slots <= 0:
        return Grants(validations)
    return Grants(validations, _upgrades(policy, tally, slots, frozenset(taken)))


def _validations(tally: Tally, slots: int, taken: frozenset[str]) -> tuple[str, ...]:
    free = (name for _, name in tally.validations[: slots + len(taken)] if name not in taken)
    return tuple(itertools.islice(free, slots))


def grants_new(policy: Policy) -> bool:
    """Whether the policy as a whole lets anything begin."""
    return policy.usable and not policy.errors and not policy.paused


def _upgrades(policy: Policy, tally: Tally, slots: int, taken: frozenset[str]) -> tuple[str, ...]:
    room = free_room(policy.spec.max_unavailable, tally.total, tally.unavailable)
    chosen: list[str] = []
    for (_, name), available in tally.candidates(halted_targets(policy, tally), slots + len(taken), room=room > 0):
        if len(chosen) == slots:
            break
        if name in taken or (available and room <= 0):
            continue
        chosen.append(name)
        room -= available
    return tuple(chosen)


def why_waiting(policy: Policy, tally: Tally, facts: Facts) -> tuple[Reason, str] | None:
    """Say why a node that needs an upgrade has not been granted; None where it does not wait for a grant."""
    if facts.ask is Ask.NOTHING:
        return None
    if facts.ask is Ask.VALIDATION:
        return Reason.NO_SLOT, _slots(policy, tally)
    if facts.blocked is not None:
        return facts.blocked, ""
    return _why_not_granted(policy, tally, group_of(facts))


def in_line(decision: Decision, why: tuple[Reason, str] | None) -> Decision:
    """Return the decision with the rollout's reason, where that is what the node waits for.

    A node cannot see from itself that its policy is paused or halted, or has no slot left; whoever tells of it must.
    """
    if why is None or decision.patch is not None:
        return decision
    return replace(decision, reason=why[0], message=why[1] or decision.message)


def waiting_by_reason(policy: Policy, tally: Tally) -> Counter[Reason]:
    """Count every node that waits, by its reason. Costs as much as there are groups, not nodes."""
    counts = Counter(tally.blocked)
    for group, places in tally.groups.items():
        counts[_why_not_granted(policy, tally, group)[0]] += len(places)
    if tally.validations:
        counts[Reason.NO_SLOT] += len(tally.validations)
    return counts


def waiting_example(policy: Policy, tally: Tally, reason: Reason) -> str:
    """Return the name of the first node that waits for this reason; empty where none does."""
    places = [tally.held.get(reason, [])[:1]]
    places += [found[:1] for group, found in tally.groups.items() if _why_not_granted(policy, tally, group)[0] is reason]
    if reason is Reason.NO_SLOT:
        places.append(tally.validations[:1])
    return min((place for found in places for place in found), default=(0, ""))[1]


def no_room(policy: Policy, tally: Tally) -> str:
    """Say how ``maxUnavailable`` alone keeps every candidate from a grant; empty where it does not, or there is none."""
    why = [_why_not_granted(policy, tally, group) for group in tally.groups]
    return why[0][1] if why and all(reason is Reason.MAX_UNAVAILABLE for reason, _ in why) else ""


def lasting_room(policy: Policy, tally: Tally, returning: int = 0) -> int:
    """Return how much room there is when all that is in progress, and ``returning`` nodes more, are available again."""
    return free_room(policy.spec.max_unavailable, tally.total, max(0, tally.unavailable - tally.in_progress - returning))


def why_never(policy: Policy, tally: Tally, group: Group, returning: int = 0) -> tuple[Reason, str] | None:
    """Say what would stay in the way of a group with every slot free, no pause, and :func:`lasting_room`; None: nothing."""
    if policy.errors:
        return _invalid(policy)
    return _halt_or_room(policy, tally, group, lasting_room(policy, tally, returning))


def _why_not_granted(policy: Policy, tally: Tally, group: Group) -> tuple[Reason, str]:
    if policy.errors:
        return _invalid(policy)
    if policy.paused:
        return Reason.PAUSED, f"{policy.full_name} is paused"
    room = free_room(policy.spec.max_unavailable, tally.total, tally.unavailable)
    return _halt_or_room(policy, tally, group, room) or (Reason.NO_SLOT, _slots(policy, tally))


def _invalid(policy: Policy) -> tuple[Reason, str]:
    return Reason.POLICY_INVALID, "; ".join(str(e) for e in policy.errors)


def _halt_or_room(policy: Policy, tally: Tally, group: Group, room: int) -> tuple[Reason, str] | None:
    target, exempt, available = group
    if target in halted_targets(policy, tally) and not exempt:
        failed = tally.failures[target]
        return Reason.HALTED, f"{failed} nodes failed for this target, failureThreshold is {policy.failure_threshold}"
    if available and room <= 0:
        cap = policy.spec.max_unavailable
        return Reason.MAX_UNAVAILABLE, f"{tally.unavailable} of {tally.total} nodes are unavailable, maxUnavailable is {cap}"
    return None


def _slots(policy: Policy, tally: Tally) -> str:
    limit = policy.spec.max_parallel_upgrades
    return f"{tally.in_progress} of {limit} slots are in use" if limit else "about to be granted"
