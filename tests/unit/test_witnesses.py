"""What the tests on the real cluster are judged by: who is believed, in which order, and what is not waited for in vain."""

import asyncio
import math
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.evidence import Evidence
from tests.cluster.judge import SLOW, Case
from tests.cluster.leaders import carried_out
from tests.cluster.process import Process
from tests.cluster.recorder import Recorder
from tests.cluster.story import Version
from tools.controlplane.api import Api, ApiError
from tools.controlplane.audit import Request
from tools.controlplane.resources import NODES, PODS, Object, Resource

OURS = "driver-upgrade/0.1.0 some-uid"
KUBECTL = "kubectl/1.36"


def moment(second: int) -> str:
    return f"1970-01-01T00:00:{second:02}.000000+00:00"


def request(
    verb: str,
    resource: str,
    key: str,
    code: int,
    *,
    before: int = 0,
    made: int = 0,
    agent: str = OURS,
    at: int,
    till: int = 0,
) -> Request:
    """One that insists on version `before`, and was answered with version `made`."""
    namespace, _, name = key.rpartition("/")
    sub = "eviction" if verb == "create" else ""
    body = {"metadata": {"resourceVersion": str(before)} if before else {}}
    answer = {"metadata": {"resourceVersion": str(made)}} if made else {}
    return Request(
        moment(at), moment(till or at), verb, resource, sub, namespace, name, "sa", agent, code, "/api", body, answer
    )


def version(number: int, resource: str, key: str, *, seen: float, told: bool = True, **spec: object) -> Version:
    namespace, _, name = key.rpartition("/")
    meta = {"name": name, "namespace": namespace, "uid": key, "resourceVersion": str(number)}
    return Version(number, resource, key, {"metadata": meta, "spec": spec}, deleted=False, seen=seen, told=told)


def evidence(*versions: Version) -> Evidence:
    """Of a world in namespaces `home` and `work`, which has watched these."""
    made = Evidence(Api.__new__(Api), "pool=p", ("home", "work"), "nvidia.com")
    made.versions += versions
    made._latest |= {(v.kind, v.key): v.number for v in versions}
    return made


@pytest.mark.parametrize(("refused_at", "order"), [(5, ["PATCH", "EVICT"]), (2, ["EVICT", "PATCH"])])
def test_a_refusal_comes_after_what_was_asked_for_before_it_whenever_our_watch_told_of_that(
    refused_at: int, order: list[str]
):
    """A budget was changed at 3, we saw it at 9: a pod that was refused at 5 had been asked for since it changed."""
    budget = request("patch", "poddisruptionbudgets", "work/b", 200, made=2, agent=KUBECTL, at=3)
    refusal = request("create", "pods", "work/p", 429, at=refused_at)
    seen = evidence(version(2, "poddisruptionbudgets", "work/b", seen=9.0))
    assert [event.verb for event in seen.events([budget, refusal])] == order


def test_a_version_that_the_log_says_nothing_about_is_waited_for():
    first, second = version(1, "nodes", "a", seen=1.0, told=False), version(2, "nodes", "a", seen=2.0)
    foreign = request("patch", "nodes", "a", 200, made=2, agent=KUBECTL, at=2)
    assert evidence(first, second).unexplained([])
    assert not evidence(first, second).unexplained([foreign])
    assert not evidence(first).unexplained([]), "it was there before we looked"


@pytest.mark.parametrize(("kind", "key"), [("nodes", "a"), ("leases", "home/driver-upgrade")])
def test_one_that_a_killed_controller_made_is_not_waited_for(kind: str, key: str):
    seen = evidence(version(1, kind, key, seen=1.0, told=False), version(2, kind, key, seen=2.0))
    cut = request("patch" if kind == "nodes" else "update", kind, key, 504, before=1, at=2)
    assert not seen.unexplained([cut])
    assert seen.unexplained([request("patch", kind, key, 504, before=7, at=2)]), "that was another version"


def renewals(*codes: int, last: int) -> list[Request]:
    """Of a Lease, each of the version before; the last is somebody else's, and insists on version `last`."""
    mine = [
        request("update", "leases", "home/l", code, before=n, made=(n + 1) * (code == 200), at=n)
        for n, code in enumerate(codes, 1)
    ]
    return [*mine, request("update", "leases", "home/l", 200, before=last, made=last + 1, agent="other", at=30)]


def test_a_renewal_that_was_cut_off_counts_where_its_version_was_replaced_and_no_other_did_it():
    assert [r.received for r in carried_out(renewals(200, 504, last=3))] == [moment(1), moment(2), moment(30)]
    assert [r.received for r in carried_out(renewals(200, 504, last=2))] == [moment(1), moment(30)]
    assert [r.received for r in carried_out(renewals(200, 409, last=2))] == [moment(1), moment(30)]


def test_it_counts_from_when_it_arrived_not_from_when_its_end_was_noted():
    (cut,) = renewals(0, last=2)[:1]
    late = Request(**{**vars(cut), "answered": moment(29)})
    assert next(iter(carried_out([late, *renewals(0, last=2)[1:]]))).answered == moment(1)


class Broken(Api):
    """Watches end, for good."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Object]] = []

    async def request(self, *_: object, **__: object) -> Object:
        return {"items": [], "metadata": {"resourceVersion": "1"}}

    async def list(self, *_: object, **__: object) -> list[Object]:
        return [{"metadata": {"name": "a", "namespace": "", "uid": "u", "resourceVersion": "2"}}]

    async def patch(self, *_: object, **__: object) -> Object:
        return {"metadata": {"uid": "u", "resourceVersion": "3"}}

    async def watch(self, *_: object, **__: object) -> AsyncIterator[tuple[str, Object]]:  # type: ignore[override]
        await asyncio.sleep(0)
        for event in self.events:
            yield event
        raise ApiError(410, {"reason": "Expired"}, "WATCH")


@pytest.mark.parametrize(
    "make", [lambda api: Evidence(api, "", ("home",), ""), lambda api: Recorder(api, "", "", ("home",))]
)
async def test_a_watch_that_ends_is_told_at_once(make: Any):
    with pytest.raises(ApiError, match="Expired"):
        async with make(Broken()) as made:
            await made.caught_up()


def seen(recorder: Recorder, resource: Resource, kind: str, number: int, **more: object) -> None:
    owner = {"ownerReferences": [{"kind": "DaemonSet", "controller": True}]} if resource is PODS else {}
    meta = {"name": "a", "namespace": "work", "uid": "u", "labels": {}, "resourceVersion": str(number), **owner}
    recorder._take(resource, kind, {"metadata": meta, "spec": more})


def test_the_pods_of_a_node_that_is_gone_are_nobodys_fault():
    recorder = Recorder(Api.__new__(Api), "p", "state", ("home", "work"))
    seen(recorder, NODES, "ADDED", 1)
    seen(recorder, NODES, "DELETED", 2)
    seen(recorder, PODS, "DELETED", 3, nodeName="a")
    recorder.check_departures("work")


@pytest.mark.parametrize("again", [False, True])
def test_those_of_an_open_node_are(again: bool):
    recorder = Recorder(Api.__new__(Api), "p", "state", ("home", "work"))
    seen(recorder, NODES, "ADDED", 1)
    if again:
        seen(recorder, NODES, "DELETED", 2)
        seen(recorder, NODES, "ADDED", 3)
    seen(recorder, PODS, "DELETED", 4, nodeName="a")
    with pytest.raises(AssertionError, match="while schedulable"):
        recorder.check_departures("work")


def process(*, synced: float = 1.0, signalled: float = 90.0) -> Process:
    made = Process.__new__(Process)
    made.synced, made.signalled, made.over = synced, signalled, 90.0
    return made


@pytest.mark.parametrize(
    ("standby", "stood"),
    [(process(), True), (process(signalled=25.0), False), (process(synced=15.0), False), (process(signalled=5.0), False)],
    ids=["stopped at the end", "frozen meanwhile", "not there yet", "frozen before"],
)
def test_who_stood_by_during_a_succession_may_have_been_stopped_after_it(standby: Process, stood: bool):
    """Every process is stopped before the judgement."""
    case = Case(evidence(), [], "home", [standby], 0)
    assert case.standby(10.0, 30.0) == (SLOW if stood else None)


def test_behind_a_proxy_that_holds_things_up_nobody_is_late():
    slow = evidence()
    slow.lag = 6.0
    assert Case(slow, [], "home", [process()], 0).standby(10.0, 30.0) is None


async def test_it_is_the_first_signal_that_counts():
    asleep = await asyncio.create_subprocess_exec("sleep", "60", stderr=asyncio.subprocess.PIPE)
    running = Process(asleep)
    running.signal(signal.SIGCONT)
    assert running.signalled == math.inf
    running.signal(signal.SIGSTOP)
    first = running.signalled
    running.signal(signal.SIGCONT)
    await running.stop()
    assert running.signalled == first < running.over
    assert not running.asked
