"""Who may begin: slots, room and failures apart; nobody delays another; the order is stable."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.upgrade.actions import Decision
from controller.upgrade.admission import (
    Grants,
    admit,
    halted_targets,
    in_line,
    lasting_room,
    no_room,
    waiting_by_reason,
    why_never,
    why_waiting,
)
from controller.upgrade.budget import free_room, free_slots
from controller.upgrade.facts import ORDINARY, OTHER_TARGET, REQUESTED, RETRY, SAFE_LOAD, Ask, Facts
from controller.upgrade.fleet import Tally, group_of
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.unit.upgrade.builders import policy

S, R = State, Reason
T1, T2 = "ds@1", "ds@2"


def wants(**changes: Any) -> Facts:
    given: dict[str, Any] = {"managed": True, "available": True, "target": T2, "ask": Ask.GRANT, **changes}
    return Facts("p", S.UPGRADE_REQUIRED, **given)


def busy(**changes: Any) -> Facts:
    return Facts("p", S.DRAIN_REQUIRED, managed=True, in_progress=True, target=T2, **changes)


def failed(target: str = T2, **changes: Any) -> Facts:
    return Facts("p", S.UPGRADE_FAILED, managed=True, target=T2, failed_target=target, **changes)


def done(*, available: bool = True) -> Facts:
    return Facts("p", S.UPGRADE_DONE, managed=True, available=available, target=T2)


def tally(nodes: Iterable[Facts]) -> Tally:
    """Nodes a, b, c, … in this order."""
    counted = Tally()
    for at, facts in enumerate(nodes):
        counted.count(chr(ord("a") + at), facts, 1)
    return counted


def upgrades(policy: Policy, *nodes: Facts, taken: Iterable[str] = ()) -> str:
    return "".join(admit(policy, tally(nodes), taken).upgrades)


TABLE: tuple[tuple[str, dict[str, Any], tuple[Facts, ...], str], ...] = (
    ("one slot", {}, (wants(), wants()), "a"),
    ("three slots", {"maxParallelUpgrades": 3}, (wants(),) * 5, "abc"),
    ("no limit", {"maxParallelUpgrades": 0}, (wants(),) * 5, "abcde"),
    ("slot in use", {}, (busy(), wants()), ""),
    ("more in use than slots", {"maxParallelUpgrades": 1}, (busy(), busy(), wants()), ""),
    ("a failed node holds no slot", {"failureThreshold": 2}, (failed(), wants()), "b"),
    ("foreign nodes in progress count", {}, (Facts("p", S.DRAIN_REQUIRED, in_progress=True), wants()), ""),
    ("maxUnavailable 0", {"maxParallelUpgrades": 0, "maxUnavailable": 0}, (wants(), wants()), ""),
    ("maxUnavailable 0, a node down anyway", {"maxUnavailable": 0}, (wants(), wants(available=False)), "b"),
    ("maxUnavailable 1 % of 3", {"maxParallelUpgrades": 0, "maxUnavailable": "1%"}, (wants(),) * 3, "a"),
    ("maxUnavailable 100 %", {"maxParallelUpgrades": 0, "maxUnavailable": "100%"}, (wants(),) * 3, "abc"),
    ("maxUnavailable beyond total", {"maxParallelUpgrades": 0, "maxUnavailable": 9}, (wants(),) * 3, "abc"),
    ("maxUnavailable unset", {"maxParallelUpgrades": 0}, (wants(), done(available=False)), "a"),
    (
        "room is used up by a broken node",
        {"maxParallelUpgrades": 0, "maxUnavailable": 1},
        (wants(), done(available=False)),
        "",
    ),
    ("room is used up by an upgrade", {"maxParallelUpgrades": 0, "maxUnavailable": 1}, (wants(), busy()), ""),
    (
        "room runs out half-way, nodes that are down go on",
        {"maxParallelUpgrades": 0, "maxUnavailable": 2},
        (wants(), wants(), wants(available=False), wants(available=False)),
        "cd",
    ),
    (
        "one of room 2, and the one down",
        {"maxParallelUpgrades": 0, "maxUnavailable": 2},
        (wants(), wants(), wants(available=False)),
        "ac",
    ),
    ("skipped delays nobody", {}, (wants(blocked=R.SKIPPED), wants()), "b"),
    ("not ready delays nobody", {}, (wants(blocked=R.NODE_NOT_READY), wants()), "b"),
    ("paused", {"paused": True}, (wants(),), ""),
    ("halted", {"failureThreshold": 2, "maxParallelUpgrades": 9}, (failed(), failed(), wants()), ""),
    ("one below the threshold", {"failureThreshold": 3, "maxParallelUpgrades": 9}, (failed(), failed(), wants()), "c"),
    ("threshold unset is maxParallelUpgrades", {"maxParallelUpgrades": 2}, (failed(), wants()), "b"),
    ("threshold unset, no limit: 1", {"maxParallelUpgrades": 0}, (failed(), wants()), ""),
    ("failed for the target before: does not count", {"maxParallelUpgrades": 0}, (failed(""), wants()), "b"),
    ("halted, another target", {}, (failed(), wants(target=T1)), "b"),
    ("halted, a retry", {}, (failed(), wants(rank=RETRY, failed_target=T2), wants()), "b"),
    (
        "a retry in progress still counts",
        {"maxParallelUpgrades": 2, "failureThreshold": 1},
        (busy(failed_target=T2), wants()),
        "",
    ),
    (
        "order",
        {"maxParallelUpgrades": 0},
        (wants(), wants(rank=SAFE_LOAD), wants(rank=REQUESTED), wants(rank=RETRY), wants(rank=OTHER_TARGET)),
        "edcba",
    ),
)


@pytest.mark.parametrize(("name", "spec", "nodes", "granted"), TABLE, ids=lambda v: v if isinstance(v, str) else "")
def test_table(name: str, spec: dict[str, Any], nodes: tuple[Facts, ...], granted: str):
    assert upgrades(policy(**spec), *nodes) == granted


def test_validations_come_first_also_paused_and_halted_but_need_a_slot():
    back = failed(ask=Ask.VALIDATION)
    nodes = tally((wants(rank=OTHER_TARGET), back, back))
    assert admit(policy(maxParallelUpgrades=2), nodes) == Grants(("b", "c"))
    assert admit(policy(maxParallelUpgrades=3, failureThreshold=9), nodes) == Grants(("b", "c"), ("a",))
    assert admit(policy(maxParallelUpgrades=0, paused=True), nodes) == Grants(("b", "c"))
    assert admit(policy(), tally((back, busy()))) == Grants()


def test_an_invalid_policy_grants_nothing_new():
    bad: dict[str, Any] = {"drain": {"podSelector": "("}}
    nodes = tally((failed(ask=Ask.VALIDATION), wants()))
    assert admit(policy(**bad), nodes) == Grants()
    assert admit(policy(**bad, last=policy(maxParallelUpgrades=5)), nodes) == Grants(("a",))


def test_a_node_just_granted_to_another_driver_is_passed_over():
    assert upgrades(policy(maxParallelUpgrades=2), wants(), wants(), wants(), taken=["a"]) == "bc"
    assert upgrades(policy(), wants(), taken=["a"]) == ""
    back = failed(ask=Ask.VALIDATION)
    assert admit(policy(), tally((back, back)), taken=["a"]) == Grants(("b",))


facts = st.builds(
    wants,
    available=st.booleans(),
    managed=st.booleans(),
    in_progress=st.booleans(),
    target=st.sampled_from([T1, T2]),
    failed_target=st.sampled_from(["", T1, T2]),
    ask=st.sampled_from(Ask),
    rank=st.sampled_from([OTHER_TARGET, RETRY, REQUESTED, SAFE_LOAD, ORDINARY]),
    blocked=st.none() | st.sampled_from([R.SKIPPED, R.NODE_NOT_READY]),
)
caps = st.none() | st.integers(0, 8) | st.integers(0, 100).map("{}%".format)


@settings(max_examples=400)
@given(st.lists(facts, max_size=10), st.integers(0, 4), caps, st.integers(1, 3), st.sets(st.sampled_from("abcdef")))
def test_never_beyond_a_cap_and_never_idle(
    nodes: list[Facts], parallel: int, cap: int | str | None, threshold: int, taken: set[str]
):
    chosen = policy(maxParallelUpgrades=parallel, maxUnavailable=cap, failureThreshold=threshold)
    counted = tally(nodes)
    grants = admit(chosen, counted, taken)
    named = {chr(ord("a") + at): f for at, f in enumerate(nodes)}
    slots = free_slots(parallel, counted.in_progress) - len(grants.validations) - len(grants.upgrades)
    room = free_room(cap, counted.total, counted.unavailable) - sum(named[n].available for n in grants.upgrades)
    assert slots >= 0
    assert room >= 0
    halted = halted_targets(chosen, counted)
    eligible = {
        name
        for name, f in named.items()
        if f.ask is Ask.GRANT and not f.blocked and name not in taken and (f.rank <= RETRY or f.target not in halted)
    }
    assert set(grants.upgrades) <= eligible
    assert len(set(grants.upgrades)) == len(grants.upgrades)
    left = [name for name in eligible - set(grants.upgrades) if room or not named[name].available]
    assert not (slots and left), f"idle although {left} may go"
    assert list(grants.upgrades) == sorted(grants.upgrades, key=lambda name: (named[name].rank, name))


@pytest.mark.parametrize(
    ("situation", "spec", "node", "nodes", "why"),
    [
        ("does not wait", {}, done(), (), None),
        ("in progress", {}, busy(), (), None),
        ("skipped", {"paused": True}, wants(blocked=R.SKIPPED), (), R.SKIPPED),
        ("invalid", {"drain": {"podSelector": "("}}, wants(), (), R.POLICY_INVALID),
        ("paused", {"paused": True}, wants(), (failed(),), R.PAUSED),
        ("halted", {}, wants(), (failed(),), R.HALTED),
        ("retry while halted", {}, wants(rank=RETRY), (failed(), busy()), R.NO_SLOT),
        ("no room", {"maxUnavailable": 0}, wants(), (), R.MAX_UNAVAILABLE),
        ("no room needed", {"maxUnavailable": 0}, wants(available=False), (busy(),), R.NO_SLOT),
        ("no slot", {}, wants(), (busy(),), R.NO_SLOT),
        ("validation", {"paused": True}, failed(ask=Ask.VALIDATION), (busy(),), R.NO_SLOT),
    ],
)
def test_why_waiting(situation: str, spec: dict[str, Any], node: Facts, nodes: tuple[Facts, ...], why: Reason | None):
    said = why_waiting(policy(**spec), tally((node, *nodes)), node)
    assert (said[0] if said else None) == why


@pytest.mark.parametrize(
    ("spec", "nodes", "counts"),
    [
        ({}, (busy(), wants(), wants()), {R.NO_SLOT: 2}),
        ({"paused": True}, (wants(), wants(blocked=R.SKIPPED)), {R.PAUSED: 1, R.SKIPPED: 1}),
        (
            {"maxUnavailable": 1},
            (done(available=False), wants(), wants(available=False)),
            {R.MAX_UNAVAILABLE: 1, R.NO_SLOT: 1},
        ),
        ({"failureThreshold": 1}, (failed(), wants(), wants(rank=RETRY)), {R.HALTED: 1, R.NO_SLOT: 1}),
        ({"drain": {"podSelector": "("}}, (wants(),), {R.POLICY_INVALID: 1}),
        ({}, (busy(), failed(ask=Ask.VALIDATION)), {R.NO_SLOT: 1}),
        ({}, (done(), busy()), {}),
    ],
)
def test_waiting_nodes_are_counted_by_reason(spec: dict[str, Any], nodes: tuple[Facts, ...], counts: dict[Reason, int]):
    assert waiting_by_reason(policy(**spec), tally(nodes)) == counts


@pytest.mark.parametrize(
    ("spec", "nodes", "why"),
    [
        ({"maxUnavailable": 0}, (wants(), wants()), "0 of 2 nodes are unavailable, maxUnavailable is 0"),
        ({"maxUnavailable": "25%"}, (wants(), failed("")), "1 of 2 nodes are unavailable, maxUnavailable is 25%"),
        ({"maxUnavailable": 0}, (wants(), wants(available=False)), ""),
        ({"maxUnavailable": 0, "paused": True}, (wants(),), ""),
        ({"maxUnavailable": 0}, (done(),), ""),
        ({}, (busy(), wants()), ""),
    ],
)
def test_that_only_room_is_missing(spec: dict[str, Any], nodes: tuple[Facts, ...], why: str):
    assert no_room(policy(**spec), tally(nodes)) == why


@pytest.mark.parametrize(
    ("spec", "node", "nodes", "why"),
    [
        ({"paused": True}, wants(), (), None),
        ({"maxUnavailable": 1}, wants(), (busy(),), None),
        ({"maxUnavailable": 1}, wants(), (busy(), done(available=False)), R.MAX_UNAVAILABLE),
        ({"maxUnavailable": 0}, wants(available=False), (), None),
        ({"drain": {"podSelector": "("}, "maxUnavailable": 0}, wants(), (), R.POLICY_INVALID),
        ({}, wants(), (failed(),), R.HALTED),
        ({}, wants(rank=RETRY), (failed(),), None),
    ],
)
def test_what_waiting_does_not_help_against(spec: dict[str, Any], node: Facts, nodes: tuple[Facts, ...], why: Reason | None):
    said = why_never(policy(**spec), tally((node, *nodes)), group_of(node))
    assert (said[0] if said else None) == why


def test_nodes_that_come_back_leave_room():
    out = tally((done(available=False), done(available=False), wants()))
    assert [lasting_room(policy(maxUnavailable=2), out, n) for n in range(4)] == [0, 1, 2, 2]


def test_groups_are_told_apart_by_what_lets_them_go():
    assert group_of(wants(rank=RETRY)) == (T2, True, True)
    assert group_of(wants(rank=REQUESTED, available=False)) == (T2, False, False)


def test_a_node_that_waits_for_the_rollout_has_the_rollouts_reason_and_its_own_words_where_that_has_none():
    waits = Decision(State.UPGRADE_REQUIRED, reason=Reason.NO_SLOT, message="so")
    assert in_line(waits, (Reason.PAUSED, "paused")) == Decision(State.UPGRADE_REQUIRED, (), Reason.PAUSED, "paused")
    assert in_line(waits, (Reason.SKIPPED, "")).message == "so"
    assert in_line(waits, None) is waits
