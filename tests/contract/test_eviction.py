"""Contract: the Eviction API."""

import pytest

from controller.kube.errors import Conflict, Forbidden, NotFound, ServerError, TooManyRequests
from tests.contract.server import Obj, Server, budget, contract, pod, running


async def ready(s: Server, name: str, app: str) -> str:
    """A ready pod; returns its uid."""
    made = await s.create("pods", pod(name, s.node, app=app))
    await s.patch("pods", name, running(), sub="status")
    return str(made["metadata"]["uid"])


async def guarded(s: Server, name: str, available: int, healthy: int, **labels: str) -> None:
    """A budget whose status is up to date."""

    def counted(obj: Obj) -> bool:
        status = obj.get("status") or {}
        current = status.get("observedGeneration") == obj["metadata"]["generation"]
        return current and status.get("currentHealthy") == healthy

    await s.create("budgets", budget(name, available, **labels))
    await s.until("budgets", name, counted)


@contract
async def test_an_accepted_eviction_is_a_success_and_the_pod_is_on_its_way_out(s: Server):
    uid = await ready(s, "p", app="a")
    version = await s.version("pods")
    answer = await s.evict("p", {"preconditions": {"uid": uid}})
    assert (answer.code, answer.obj["kind"], answer.obj["status"], answer.obj["code"]) == (201, "Status", "Success", 201)
    there = (await s.get(s.path("pods", "p"))).obj
    assert there["metadata"]["deletionGracePeriodSeconds"] == 30
    (target,) = [c for c in there["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")
    found = await s.events(2, s.path("pods"), version)
    assert ["deletionTimestamp" in e["object"]["metadata"] for e in found] == [False, True]


@contract
async def test_a_pod_that_is_not_there_cannot_be_evicted(s: Server):
    answer = await s.evict("none")
    assert (answer.code, answer.obj["reason"]) == (404, "NotFound")
    with pytest.raises(NotFound):
        await s.client.evict("none", s.namespace, "x")


@contract
async def test_a_pod_of_another_uid_is_not_evicted(s: Server):
    await ready(s, "p", app="a")
    answer = await s.evict("p", {"preconditions": {"uid": "another"}})
    assert (answer.code, answer.obj["reason"]) == (409, "Conflict")
    assert "deletionTimestamp" not in (await s.get(s.path("pods", "p"))).obj["metadata"]
    with pytest.raises(Conflict):
        await s.client.evict("p", s.namespace, "another")


@contract
async def test_a_dry_run_evicts_nothing(s: Server):
    await ready(s, "p", app="a")
    answer = await s.evict("p", {"dryRun": ["All"]})
    assert answer.code == 201
    there = (await s.get(s.path("pods", "p"))).obj
    assert "deletionTimestamp" not in there["metadata"]


@contract
async def test_the_grace_of_an_eviction_is_its_own(s: Server):
    uid = await ready(s, "p", app="a")
    await s.client.evict("p", s.namespace, uid, 7)
    assert (await s.get(s.path("pods", "p"))).obj["metadata"]["deletionGracePeriodSeconds"] == 7


@contract
async def test_a_budget_refuses_and_says_which_it_is(s: Server):
    uid = await ready(s, "p", app="a")
    await guarded(s, "keep", 1, 1, app="a")
    answer = await s.evict("p", {"preconditions": {"uid": uid}})
    assert (answer.code, answer.obj["reason"]) == (429, "TooManyRequests")
    assert answer.obj["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    (cause,) = answer.obj["details"]["causes"]
    assert cause["reason"] == "DisruptionBudget"
    assert cause["message"] == "The disruption budget keep needs 1 healthy pods and has 1 currently"
    assert "Retry-After" not in answer.headers
    with pytest.raises(TooManyRequests) as caught:
        await s.client.evict("p", s.namespace, uid)
    assert caught.value.has_cause("DisruptionBudget")


@contract
async def test_a_budget_lets_as_many_go_as_it_says_and_then_no_more(s: Server):
    for name in ("p", "q"):
        await ready(s, name, app="a")
    await guarded(s, "keep", 1, 2, app="a")
    assert (await s.evict("p")).code == 201
    spent = await s.until("budgets", "keep", lambda b: b["status"]["disruptionsAllowed"] == 0)
    assert spent["status"]["currentHealthy"] in {1, 2}
    refused = await s.evict("q")
    assert (refused.code, refused.obj["details"]["causes"][0]["reason"]) == (429, "DisruptionBudget")


@contract
async def test_two_budgets_on_a_pod_are_an_error_of_the_server(s: Server):
    uid = await ready(s, "p", app="a")
    await guarded(s, "one", 0, 1, app="a")
    await guarded(s, "two", 0, 1, app="a")
    answer = await s.evict("p", {"preconditions": {"uid": uid}})
    assert answer.code == 500
    assert answer.obj["message"].startswith("This pod has more than one PodDisruptionBudget")
    with pytest.raises(ServerError):
        await s.client.evict("p", s.namespace, uid)


@contract
async def test_what_does_not_run_needs_no_budget(s: Server):
    await s.create("pods", pod("pending", s.node, app="a"))
    await guarded(s, "keep", 1, 0, app="a")
    assert (await s.evict("pending")).code == 201


@contract
async def test_nothing_is_evicted_in_a_namespace_that_is_being_deleted(s: Server):
    held = await s.create("pods", pod("held", s.node, finalizers=("example.com/hold",)))
    await s.patch("pods", "held", running(), sub="status")
    await s.ask("DELETE", f"/api/v1/namespaces/{s.namespace}")
    answer = await s.evict("held", {"preconditions": {"uid": held["metadata"]["uid"]}})
    assert (answer.code, answer.obj["reason"]) == (403, "Forbidden")
    (cause,) = [c for c in answer.obj["details"]["causes"] if c["reason"] == "NamespaceTerminating"]
    assert cause["message"] == f"namespace {s.namespace} is being terminated"
    refused = await s.ask("POST", s.path("pods"), pod("new"))
    assert (refused.code, refused.obj["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
    with pytest.raises(Forbidden) as caught:
        await s.client.evict("held", s.namespace, held["metadata"]["uid"])
    assert caught.value.has_cause("NamespaceTerminating")
