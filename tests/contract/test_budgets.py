"""Contract: what the disruption controller makes of a budget, on which every eviction waits."""

from collections.abc import Callable

from tests.contract.server import Obj, Server, budget, contract
from tests.contract.test_controllers import ready, remove, uid_of
from tests.contract.test_eviction import guarded
from tests.contract.test_eviction import ready as bare_pod
from tests.sim.objects import key_of

Told = dict[str, int]


async def cordon(s: Server, node: str, *, on: bool) -> None:
    """Let no more pods come to a node, or let them again."""
    assert (await s.ask("PATCH", f"/api/v1/nodes/{node}", {"spec": {"unschedulable": on}})).code == 200


def most(name: str, unavailable: int) -> Obj:
    """A budget that says ``maxUnavailable``, of the pods of a workload."""
    made = budget(name, 0, app=name)
    del made["spec"]["minAvailable"]
    made["spec"]["maxUnavailable"] = unavailable
    return made


def counted(healthy: int, desired: int, expected: int, allowed: int) -> Callable[[Obj], bool]:
    """Whether the status is of the newest spec, and says this."""
    wanted: Told = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
    }

    def holds(obj: Obj) -> bool:
        status = obj.get("status") or {}
        fresh = status.get("observedGeneration") == obj["metadata"]["generation"]
        return fresh and {name: status.get(name) for name in wanted} == wanted

    return holds


@contract
async def test_max_unavailable_goes_by_what_the_pods_controller_wants(s: Server):
    await s.cluster.join()
    await s.cluster.deploy("work", 3)
    await ready(s, 3, "work")
    await s.create("budgets", most("work", 1))
    await s.until("budgets", "work", counted(3, 2, 3, 1))


@contract
async def test_a_pod_of_no_controller_is_never_allowed_to_go_by_max_unavailable(s: Server):
    await bare_pod(s, "p", app="work")
    await s.create("budgets", most("work", 1))
    await s.until("budgets", "work", counted(1, 0, 0, 0))
    assert (await s.evict("p")).code == 429


@contract
async def test_min_available_goes_by_the_pods_that_are_there(s: Server):
    await s.create("budgets", budget("keep", 1, app="a"))
    await s.until("budgets", "keep", counted(0, 1, 0, 0))
    for name in ("p", "q", "r"):
        await bare_pod(s, name, app="a")
    await s.until("budgets", "keep", counted(3, 1, 3, 2))
    await remove(s, "pods", "r", gracePeriodSeconds=0)
    await s.until("budgets", "keep", counted(2, 1, 2, 1))


@contract
async def test_a_pod_that_goes_is_not_healthy_and_still_counts(s: Server):
    for name in ("p", "q"):
        await bare_pod(s, name, app="a")
    await guarded(s, "keep", 1, 2, app="a")
    assert (await s.evict("p")).code == 201
    await s.until("budgets", "keep", counted(1, 1, 2, 0))


@contract
async def test_what_was_evicted_is_remembered_until_it_is_on_its_way_and_its_successor_allows_the_next(s: Server):
    machine = await s.cluster.join()
    await s.cluster.deploy("work", 2)
    first, second = sorted(await ready(s, 2, "work"), key=key_of)
    await s.create("budgets", most("work", 1))
    await s.until("budgets", "work", counted(2, 1, 2, 1))
    await cordon(s, machine, on=True)  # until then there is no successor, however slow we are
    assert (await s.evict(first["metadata"]["name"], {"preconditions": {"uid": uid_of(first)}})).code == 201
    refused = await s.evict(second["metadata"]["name"])
    await cordon(s, machine, on=False)
    allowed = await s.until("budgets", "work", counted(2, 1, 2, 1))
    assert not allowed["status"].get("disruptedPods")
    names = {pod["metadata"]["name"] for pod in await ready(s, 2, "work")}
    assert second["metadata"]["name"] in names
    assert first["metadata"]["name"] not in names
    assert refused.code == 429


@contract
async def test_a_budget_that_changes_is_counted_anew(s: Server):
    for name in ("p", "q"):
        await bare_pod(s, name, app="a")
    await guarded(s, "keep", 1, 2, app="a")
    await s.patch("budgets", "keep", {"spec": {"minAvailable": 2}})
    await s.until("budgets", "keep", counted(2, 2, 2, 0))
