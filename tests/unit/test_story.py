"""Whose write made which version (tests/cluster/story.py), above all where its sender was killed before the answer."""

from collections.abc import Iterable

import pytest

from tests.checker import Checker, Event, Subject
from tests.cluster.story import Story, Version, event
from tools.controlplane.audit import Request
from tools.controlplane.resources import Object

STATE = "nvidia.com/gpu-driver-upgrade-state"
OURS = "driver-upgrade/0.1.0 some-uid"
REASONS = [0, 499, 500, 504]
"""What the log says of a request whose client has left, by when that was noticed."""


def node(version: int, state: str, *, cordoned: bool) -> Object:
    meta = {"name": "a", "uid": "u", "resourceVersion": str(version), "labels": {STATE: state}, "annotations": {}}
    return {"metadata": meta, "spec": {"unschedulable": True} if cordoned else {}}


def patch(version: int, code: int, *, agent: str = OURS, made: int = 0, received: int = 0, answered: int = 0) -> Request:
    """Of whoever insists on a version; 0 is for who does not."""
    meta = {"resourceVersion": str(version)} if version else {}
    body = {"metadata": meta, "spec": {"unschedulable": True}}
    answer = {"metadata": {"name": "a", "resourceVersion": str(made)}} if made else {"status": "Failure"}
    came, went = (f"2030-01-01T00:00:{seconds or version:02}.000000Z" for seconds in (received, answered))
    return Request(came, went, "patch", "nodes", "", "", "a", "sa", agent, code, "/api", body, answer)


def removal(verb: str, code: int, uid: str) -> Request:
    options = {"preconditions": {"uid": uid}}
    body, sub = (options, "") if verb == "delete" else ({"deleteOptions": options}, "eviction")
    time = "2030-01-01T00:00:05.000000Z"
    return Request(time, time, verb, "pods", sub, "work", "p", "sa", OURS, code, "/api", body, {"status": "Failure"})


def told(requests: Iterable[Request], *nodes: Object) -> list[Event]:
    story, events, old = Story(requests), [], None
    for obj in nodes:
        number = int(obj["metadata"]["resourceVersion"])
        version = Version(number, "nodes", "a", obj, deleted=False, seen=float(number))
        events.append(event(version, old, story.author(version, old)))
        old = obj
    return [*events, *story.refused_before(float("inf"), {("nodes", "a"): old} if old else {})]


BEFORE = node(1, "upgrade-required", cordoned=False)
AFTER = node(2, "cordon-required", cordoned=True)


@pytest.mark.parametrize("code", REASONS)
def test_a_write_without_an_answer_is_its_senders_where_the_version_that_it_insisted_on_was_replaced(code: int) -> None:
    made = told([patch(1, code)], BEFORE, AFTER)
    assert [(e.actor, e.old, e.new, e.code) for e in made[1:]] == [("controller", BEFORE, AFTER, 200)]


def test_one_that_was_not_carried_out_is_nobodys() -> None:
    other = patch(1, 200, agent="kubectl/1.36", made=2)
    assert [e.actor for e in told([patch(1, 504), other], BEFORE, AFTER)] == ["cluster", "admin"]
    assert [e.actor for e in told([patch(7, 504)], BEFORE, AFTER)] == ["cluster", "cluster"]


@pytest.mark.parametrize("code", [403, 409, 422, 429])
def test_a_refusal_is_an_answer(code: int) -> None:
    events = told([patch(1, code)], BEFORE, AFTER)
    assert [(e.actor, e.code) for e in events] == [("cluster", 200), ("cluster", 200), ("controller", code)]


@pytest.mark.parametrize(("received", "answered"), [(1, 9), (5, 9), (1, 2)], ids=["around it", "after it", "before it"])
def test_a_stranger_that_changed_nothing_has_not_made_our_version(received: int, answered: int) -> None:
    mine = patch(1, 200, made=2, received=received, answered=answered)
    nothing = patch(0, 200, agent="kubectl/1.36", made=2, received=3, answered=4)
    made = told([mine, nothing], BEFORE, AFTER)
    assert [(e.actor, e.old is e.new) for e in made[1:]] == [("controller", False)]


def test_of_two_that_insist_on_nothing_the_first_made_it() -> None:
    requests = [
        patch(0, 200, agent="kubectl/1.36", made=2, received=2, answered=9),
        patch(0, 200, made=2, received=3, answered=3),
    ]
    assert [
        (e.actor, e.old is e.new)
        for e in told([patch(0, 200, agent="a/1", made=1, received=1, answered=1), *requests], BEFORE, AFTER)
    ] == [
        ("a", False),
        ("admin", False),
        ("controller", True),
    ]


def test_who_insists_on_a_version_and_is_answered_with_it_changed_nothing() -> None:
    """A cut off write made the version, and the next controller wrote the same again."""
    made = told([patch(1, 504), patch(2, 200, made=2)], BEFORE, AFTER)
    assert [(e.actor, e.code, e.old is e.new) for e in made[1:]] == [("controller", 200, False), ("controller", 200, True)]


def test_a_write_that_was_cut_off_is_no_deletion() -> None:
    version = Version(2, "nodes", "a", BEFORE, deleted=True, seen=9.0)
    assert Story([patch(1, 504)]).author(version, BEFORE) is None


@pytest.mark.parametrize("verb", ["delete", "create"])
@pytest.mark.parametrize("uid", ["u", "another"])
def test_a_pod_is_deleted_or_evicted_by_whom_its_uid_was_told_to(verb: str, uid: str) -> None:
    old = {"metadata": {"name": "p", "namespace": "work", "uid": "u", "resourceVersion": "1"}}
    new = {"metadata": {**old["metadata"], "resourceVersion": "2", "deletionTimestamp": "now"}}
    version = Version(2, "pods", "work/p", new, deleted=False, seen=9.0)
    found = event(version, old, Story([removal(verb, 0, uid)]).author(version, old))
    assert found.actor == ("controller" if uid == "u" else "cluster")


def test_the_cordon_of_a_killed_controller_is_not_a_strangers() -> None:
    """Its successor lifts it; S5 was reported here."""
    checker = Checker([Subject()])
    for one in told([patch(1, 504)], BEFORE, AFTER):
        checker.take(one)
    assert checker.cordons.by("a") == "ours"
