"""What a rollout took, read from the audit log: the window, whose requests count, and which stand apart."""

import pytest

from tools.bench.witness import evidence_of
from tools.controlplane.audit import Request

CLIENT = "driver-upgrade"


def request(second: float, verb: str, target: str, *, agent: str = CLIENT, lasting: float = 0.0, code: int = 200) -> Request:
    resource, _, subresource = target.partition("/")
    received, answered = (f"2030-01-01T00:00:{at:09.6f}Z" for at in (second, second + lasting))
    return Request(received, answered, verb, resource, subresource, "", "x", "admin", f"{agent}/1.0 (x)", code, "/api")


def change(second: float) -> Request:
    return request(second, "patch", "daemonsets", agent="driver-upgrade-tools")


def test_the_makespan_is_from_the_versions_change_to_the_answer_to_the_last_node_write() -> None:
    seen = [
        request(5, "patch", "nodes"),
        change(10),
        request(11, "patch", "nodes"),
        request(17, "patch", "nodes", lasting=0.5),
        request(18, "patch", "nodes", agent="kwok"),
    ]
    assert evidence_of(seen, CLIENT).makespan == 7.5


def test_the_controller_managers_own_write_of_the_daemonset_does_not_begin_a_rollout() -> None:
    manager = request(8, "update", "daemonsets/status", agent="kube-controller-manager")
    assert evidence_of([manager, change(10), request(11, "patch", "nodes")], CLIENT).makespan == 1


def test_only_the_clients_own_requests_since_the_change_count_and_events_and_leases_stand_apart() -> None:
    seen = [
        request(9, "list", "nodes"),
        change(10),
        request(11, "patch", "nodes"),
        request(12, "patch", "nodes"),
        request(12, "watch", "pods"),
        request(12, "create", "events"),
        request(12, "update", "leases"),
        request(12, "list", "pods", agent="driver-upgrade-tools"),
    ]
    told = evidence_of(seen, CLIENT)
    assert told.requests == {("patch", "nodes"): 2, ("watch", "pods"): 1}
    assert (told.total, told.apart) == (3, 2)


def test_evictions_are_told_by_answer_and_by_how_long_that_took() -> None:
    seen = [
        change(10),
        request(11, "create", "pods/eviction", code=201, lasting=0.25),
        request(12, "create", "pods/eviction", code=429, lasting=0.125),
        request(13, "patch", "nodes"),
    ]
    told = evidence_of(seen, CLIENT)
    assert told.evictions == {201: 1, 429: 1}
    assert told.eviction_seconds == (0.125, 0.25)


@pytest.mark.parametrize(
    ("seen", "missing"), [([request(1, "patch", "nodes")], "no change"), ([change(1)], "no node written")]
)
def test_a_log_without_a_rollout_is_said_to_be_so(seen: list[Request], missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        evidence_of(seen, CLIENT)
