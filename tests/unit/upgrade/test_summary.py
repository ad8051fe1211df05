"""The lists of the status: the right nodes in the right order, and never too much."""

import msgspec
import pytest
from msgspec.structs import replace

from controller.api.meta import timestamp
from controller.upgrade.actions import Decision
from controller.upgrade.conditions import conditions, status_of
from controller.upgrade.facts import ORDINARY, SAFE_LOAD, Ask, Facts
from controller.upgrade.fleet import Fleet, Tally
from controller.upgrade.narration import gist
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.record import Failure
from controller.upgrade.remedies import REMEDIES
from controller.upgrade.states import State
from controller.upgrade.summary import (
    MAX_BLOCKERS_IN_ALL,
    MAX_NODES,
    active_item,
    active_names,
    bounded,
    failed_item,
    failed_names,
    targets,
    waiting,
    waiting_for,
)
from controller.upgrade.survey import headline, survey
from tests.unit.upgrade.builders import ENTERED, NOW, policy, record
from tools import policy_docs

DRAIN, FAILED, REQUIRED, DONE = State.DRAIN_REQUIRED, State.UPGRADE_FAILED, State.UPGRADE_REQUIRED, State.UPGRADE_DONE
MOST_BYTES = 400_000
"""Well within what etcd takes for one object (1.5 MiB)."""


def tally(*nodes: Facts) -> Tally:
    made = Fleet()
    for number, facts in enumerate(nodes):
        made.update("gpu", f"n{number:04}", facts)
    return made.tally("gpu", "p")


def node(
    state: State, since: float = NOW, *, blocked: Reason | None = None, rank: int = ORDINARY, target: str = "ds@2"
) -> Facts:
    ask = Ask.GRANT if state is REQUIRED else Ask.NOTHING
    return Facts("p", state, True, state is DRAIN, True, target, "", ask, rank, blocked, since)


def test_active_nodes_are_those_that_have_been_there_longest():
    many = [node(DRAIN, NOW - n) for n in range(MAX_NODES + 50)]
    names = active_names(tally(*many, node(FAILED), node(DONE)))
    assert len(names) == MAX_NODES
    assert names[0] == f"n{MAX_NODES + 49:04}"


def test_failed_nodes_are_the_latest():
    names = failed_names(tally(*(node(FAILED, NOW - n) for n in range(MAX_NODES + 50)), node(DRAIN)))
    assert len(names) == MAX_NODES
    assert names[0] == "n0000"


def test_an_active_node_says_what_it_waits_for():
    blocker = Blocker(Reason.POD_DISRUPTION_BUDGET, "work", "web", "needs 1, has 1", NOW)
    decision = Decision(DRAIN, reason=Reason.POD_DISRUPTION_BUDGET, message="1 left", blockers=(blocker,), deadline=NOW + 60)
    assert active_item("n1", record(DRAIN), decision) == {
        "node": "n1",
        "state": "drain-required",
        "since": timestamp(ENTERED),
        "deadline": timestamp(NOW + 60),
        "reason": "PodDisruptionBudget",
        "message": "1 left",
        "blockers": [
            {
                "reason": "PodDisruptionBudget",
                "namespace": "work",
                "name": "web",
                "message": "needs 1, has 1",
                "since": timestamp(NOW),
            }
        ],
    }


@pytest.mark.parametrize("decision", [None, Decision(State.VALIDATION_REQUIRED, reason=Reason.VALIDATION_NOT_READY)])
def test_of_a_node_that_has_moved_on_nothing_old_is_said(decision):
    assert active_item("n1", record(DRAIN), decision) == {
        "node": "n1",
        "state": "drain-required",
        "since": timestamp(ENTERED),
    }


def test_a_failed_node_says_where_and_why():
    failure = Failure(Reason.DEADLINE_EXCEEDED, DRAIN, "ds@2", "uid", "time is up")
    found = failed_item("n1", record(FAILED, failure=failure))
    assert (found["state"], found["reason"], found["message"]) == ("drain-required", "DeadlineExceeded", "time is up")
    assert failed_item("n1", record(FAILED))["reason"] == "Failed"


def test_the_whole_stays_within_what_etcd_takes():
    words = "\u00fc" * 5000
    blockers = tuple(Blocker(Reason.EVICTION_DENIED, "n" * 63, "p" * 253, words, NOW) for _ in range(500))
    decision = Decision(DRAIN, reason=Reason.EVICTION_DENIED, message=words, blockers=blockers, deadline=NOW)
    items = bounded(active_item("n" * 253, record(DRAIN), decision) for _ in range(MAX_NODES))
    assert all(item["blockers"] for item in items)
    assert sum(len(item["blockers"]) for item in items) <= MAX_BLOCKERS_IN_ALL + MAX_NODES
    assert len(msgspec.json.encode(items)) < MOST_BYTES


def test_an_item_has_every_field_that_the_crd_tells_of():
    """The CRD told of the blockers of failed nodes, which nothing keeps."""
    status = policy_docs.load()["properties"]["status"]["properties"]
    blocker = Blocker(Reason.POD_DISRUPTION_BUDGET, "work", "web", "needs 1, has 1", NOW, NOW + 1)
    decision = Decision(DRAIN, reason=blocker.reason, message="1 left", blockers=(blocker,), deadline=NOW + 60)
    active = active_item("n1", record(DRAIN), decision)
    failure = Failure(Reason.DEADLINE_EXCEEDED, DRAIN, message="too late")
    told = {
        "active": active,
        "active.blockers": active["blockers"][0],
        "failed": failed_item("n1", record(FAILED, failure=failure)),
    }
    schemas = {name: status[name]["items"]["properties"] for name in ("active", "failed")}
    schemas["active.blockers"] = schemas["active"]["blockers"]["items"]["properties"]
    assert {name: set(item) for name, item in told.items()} == {name: set(fields) for name, fields in schemas.items()}


def test_waiting_nodes_are_counted_by_reason_each_with_the_first():
    found = tally(
        node(REQUIRED),
        node(REQUIRED, rank=SAFE_LOAD),
        node(REQUIRED, blocked=Reason.SKIPPED),
        node(REQUIRED, blocked=Reason.NODE_NOT_READY),
        node(REQUIRED, blocked=Reason.NODE_NOT_READY),
        node(DRAIN),
    )
    assert waiting(policy(), found) == [
        {"reason": "NoSlot", "nodes": 2, "example": "n0001"},
        {"reason": "NodeNotReady", "nodes": 2, "example": "n0003"},
        {"reason": "Skipped", "nodes": 1, "example": "n0002"},
    ]
    assert waiting(policy(paused=True), found)[1] == {"reason": "Paused", "nodes": 2, "example": "n0001"}


def test_targets_are_told_with_those_that_run_them():
    found = tally(node(DONE), node(DONE), node(DRAIN), node(DONE, target="other@7"), node(DONE, target="gone@1"))
    assert targets(found, {"ds": ("driver", "abc"), "other": ("second", "def")}) == [
        {"daemonSet": "driver", "uid": "ds", "revision": 2, "hash": "abc", "nodes": 3, "upToDate": 2},
        {"daemonSet": "second", "uid": "other", "revision": 7, "hash": "def", "nodes": 1, "upToDate": 1},
    ]


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (["Evicting", "PodDisruptionBudget", "JobsRunning", "PodDisruptionBudget"], "PodDisruptionBudget"),
        (["Evicting"], ""),
        (["JobsRunning", "EmptyDirPod"], "EmptyDirPod"),
    ],
)
def test_the_headline_reason_is_that_of_most_active_nodes(reasons, expected):
    active = [{"node": "n", "reason": reason} for reason in reasons]
    assert waiting_for(policy(), tally(node(REQUIRED)), active) == expected


def test_where_none_is_active_it_is_that_of_most_waiting_nodes():
    held = [node(REQUIRED, blocked=Reason.SKIPPED), node(REQUIRED, blocked=Reason.SKIPPED), node(REQUIRED)]
    assert waiting_for(policy(), tally(*held), []) == "Skipped"
    assert waiting_for(policy(), tally(node(DONE)), []) == ""
    assert waiting_for(policy(), tally(node(DONE, blocked=Reason.DRIVER_POD_MISSING)), []) == "DriverPodMissing"
    assert waiting_for(policy(), tally(node(DONE, blocked=Reason.REVISION_UNKNOWN)), []) == ""


def test_a_rollout_of_which_nothing_can_begin_is_blocked():
    assert headline(policy(), tally(node(DONE), node(REQUIRED, blocked=Reason.SKIPPED))) == (
        "Blocked",
        "nothing can begin: 1 Skipped",
    )
    assert headline(policy(), tally(node(REQUIRED), node(REQUIRED, blocked=Reason.SKIPPED)))[0] == "Upgrading"
    assert headline(policy(), tally(node(REQUIRED, blocked=Reason.REVISION_UNKNOWN)))[0] == "Upgrading"


CAPPED = policy(maxUnavailable=0)
FULL = "0 of {} nodes are unavailable, maxUnavailable is 0. {}"


def test_a_rollout_that_max_unavailable_keeps_from_beginning_is_blocked_and_says_what_to_do():
    words = FULL.format(3, REMEDIES[Reason.MAX_UNAVAILABLE])
    found = tally(node(REQUIRED), node(REQUIRED), node(REQUIRED))
    assert headline(CAPPED, found) == ("Blocked", f"nothing can begin: 3 MaxUnavailable: {words}")
    assert status_of(CAPPED, found, [])["state"] == "Blocked"
    beside = tally(node(REQUIRED, blocked=Reason.SKIPPED), node(REQUIRED))
    words = FULL.format(2, REMEDIES[Reason.MAX_UNAVAILABLE])
    assert headline(CAPPED, beside) == ("Blocked", f"nothing can begin: 1 Skipped, 1 MaxUnavailable: {words}")


def test_its_condition_says_the_same_and_is_news():
    (progressing,) = (c for c in conditions(CAPPED, tally(node(REQUIRED)), []) if c.type == "Progressing")
    assert (progressing.status, progressing.reason) == ("False", "Blocked")
    assert progressing.message.startswith("0 of 1 nodes are up to date, 0 in progress, 1 waiting: nothing can begin: 1 Max")
    assert gist(msgspec.to_builtins(progressing)) == ("False", "MaxUnavailable")


@pytest.mark.parametrize(
    ("situation", "by", "nodes", "word"),
    [
        ("one in progress makes room when it is done", CAPPED, (node(REQUIRED), node(DRAIN)), "Upgrading"),
        ("one needs no room", CAPPED, (node(REQUIRED), replace(node(REQUIRED), available=False)), "Upgrading"),
        ("a validation needs none", CAPPED, (node(REQUIRED), replace(node(FAILED), ask=Ask.VALIDATION)), "Upgrading"),
        ("there is room", policy(maxUnavailable=1), (node(REQUIRED),), "Upgrading"),
        ("paused", policy(maxUnavailable=0, paused=True), (node(REQUIRED),), "Paused"),
        ("nothing waits", CAPPED, (node(DONE),), "Idle"),
    ],
)
def test_it_is_not_blocked_where(situation: str, by: Policy, nodes: tuple[Facts, ...], word: str):
    assert headline(by, tally(*nodes))[0] == word


def test_a_survey_tells_the_reasons_as_the_status_does():
    found = tally(node(REQUIRED), node(REQUIRED), node(REQUIRED, blocked=Reason.SKIPPED))
    assert survey(CAPPED, found).blocked == (
        {"reason": "MaxUnavailable", "nodes": 2, "example": "n0000"},
        {"reason": "Skipped", "nodes": 1, "example": "n0002"},
    )
    assert survey(CAPPED, found, counts=False).blocked == ()


def test_a_paused_policy_is_told_with_the_command_that_ends_it():
    assert headline(policy(paused=True), tally(node(REQUIRED)))[1] == (
        "resume it with driver-upgrade resume DriverUpgradePolicy/ops/gpu"
    )
