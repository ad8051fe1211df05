"""The checker is worth what it notices: controllers with a defect, run as real processes, are caught on the real cluster."""

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.cluster import test_sources as sources
from tests.cluster.judge import LEASE
from tests.cluster.process import Process
from tests.cluster.story import uid_of
from tests.cluster.world import DONE, POLICIES, REQUIRED, World, world
from tools.controlplane.api import PATIENCE, Api
from tools.controlplane.audit import AuditLog
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import LEASES, NODES, Object

CORDON = {"spec": {"unschedulable": True}}
MUTANTS = {
    "a foreign label is written": r"S11 .*example\.com/x",
    "P4 a PATCH without resourceVersion": "S15 .*a PATCH without resourceVersion",
    "P4 deletions and evictions without uid": "S[34] .*without its uid",
    "a state is left out": "S7 .*cordon-required -> uncordon-required",
}
ELECTED = "--leader-elect"


async def rolled(made: World, *, nodes: int = 1, cordoned: int = 0, validated: bool = False) -> None:
    """A rollout that looks well."""
    await made.nodes(nodes)
    await made.driver("1")
    await made.workload("web")
    await made.policy(validation={"podSelector": "app=validator"} if validated else {})
    for name in made.names[:cordoned]:
        await made.api.patch(NODES, name, CORDON)


def audited(control_plane: ControlPlane) -> None:
    """Skips the test where nobody knows who wrote what."""
    if not control_plane.components:
        pytest.skip("the cluster was given: there is no audit log")


async def story(api: Api, control_plane: ControlPlane, mutant: str, *, cordoned: int = 0) -> None:
    """A rollout by a mutant, judged as every test is."""
    audited(control_plane)
    async with world(api, control_plane) as made:
        await rolled(made, cordoned=cordoned)
        async with made.controller(mutant=mutant):
            await made.state(DONE)
            await made.roll("2")
            if mutant == "a state is left out":
                await made.state("uncordon-required")
            else:
                await made.done("2")


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_controller_with_a_defect_is_caught(api: Api, control_plane: ControlPlane, crds: None, name: str):
    with pytest.raises(AssertionError, match=MUTANTS[name]):
        await story(api, control_plane, name)


async def test_a_controller_that_lifts_a_foreign_cordon_is_caught(api: Api, control_plane: ControlPlane, crds: None):
    with pytest.raises(AssertionError, match=r"S5 .*lifted a cordon that is not ours"):
        await story(api, control_plane, "any cordon is lifted at the end", cordoned=1)


async def test_a_controller_without_one_is_not(api: Api, control_plane: ControlPlane, crds: None):
    async with world(api, control_plane) as made:
        await rolled(made)
        async with made.controller():
            await made.state(DONE)
            await made.roll("2")
            await made.done("2")
        assert [e for e in made.evidence.events(await made.witnessed()) if e.ours and e.kind == "nodes"], "it saw ours"


async def never_granted(made: World, controller: Process) -> None:
    await made.state(REQUIRED)
    await controller.logged(msg="node waits", state=REQUIRED)


async def not_begun(made: World, _: Process) -> None:
    await made.status(lambda status: status["targets"][0]["revision"] == 2)


async def not_validated(made: World, controller: Process) -> None:
    (node,) = made.names
    await controller.logged(msg="node waits", reason="ValidationPodMissing")
    await made.expire(node)


async def not_opened(made: World, _: Process) -> None:
    await made.state("uncordon-required")
    await made.state(DONE)


RESTING: dict[str, tuple[str, Callable[[World, Process], Awaitable[None]]]] = {
    "P6 validation without pods never ends": ("L1 .*still in validation-required", not_validated),
    "no slot is ever free": ("L2 .*could be upgraded, and nobody does", never_granted),
    "outdated drivers will do": ("L3 .*in upgrade-done with an outdated driver", not_begun),
    "the cordon is never lifted": ("L5 .*our cordon is left", not_opened),
}
"""What a mutant ends in instead of a rollout that is done."""


@pytest.mark.parametrize("name", RESTING)
async def test_a_rest_that_is_no_end_is_noticed(api: Api, control_plane: ControlPlane, crds: None, name: str):
    audited(control_plane)
    said, comes_to_rest = RESTING[name]
    async with world(api, control_plane, expected=said.split()[:1]) as made:
        await rolled(made, validated=comes_to_rest is not_validated)
        async with made.controller(mutant=name) as controller:
            await made.state(DONE)
            await made.roll("2")
            await comes_to_rest(made, controller)
        violations = await made.violations(at_rest=True)
    assert any(re.search(said, violation) for violation in violations), violations


async def two_that_act(api: Api, control_plane: ControlPlane) -> None:
    """The thief of the Lease stands still from then on: who writes is the former leader, which leaves the Lease to it."""
    async with world(api, control_plane) as made:
        await rolled(made)
        async with made.controller(ELECTED, mutant="it never learns that another one leads"):
            await made.state(DONE)
            async with made.controller(ELECTED, mutant="it takes a Lease that is held") as thief:
                await made.api.wait_for_object(
                    LEASES, LEASE, lambda lease: lease["spec"].get("holderIdentity") == thief.identity, made.namespace
                )
                thief.signal(signal.SIGSTOP)
                await made.roll("2")
                await made.done("2")
                thief.kill()


async def lease_kept(api: Api, control_plane: ControlPlane) -> None:
    """Who follows does not wait for it here, so that it takes no 15 s."""
    async with world(api, control_plane) as made:
        await rolled(made)
        async with made.controller(ELECTED, mutant="it keeps the Lease when it ends"):
            await made.state(DONE)
        async with made.controller(ELECTED, mutant="it takes a Lease that is held"):
            await made.roll("2")
            await made.done("2")


async def slow_succession(api: Api, control_plane: ControlPlane) -> None:
    """The standby has looked once, and looks again half a minute later; three seconds are allowed."""
    async with world(api, control_plane) as made:
        await rolled(made)
        async with made.controller(ELECTED) as leader:
            await made.state(DONE)
            async with made.controller(ELECTED, mutant="a standby looks twice a minute") as standby:
                await looked(control_plane, standby)
                assert await leader.stop() == 0
                await made.api.wait_for_object(
                    LEASES, LEASE, lambda lease: lease["spec"].get("holderIdentity") == standby.identity, made.namespace
                )


async def looked(control_plane: ControlPlane, standby: Process) -> None:
    """Waits until a standby has looked at the Lease."""
    log, uid = AuditLog(control_plane.audit_log), standby.identity.rpartition("_")[2]
    async with asyncio.timeout(PATIENCE):
        while not any(uid_of(r) == uid and r.verb == "get" and r.resource == "leases" for r in log.read()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def two_policies(api: Api, control_plane: ControlPlane) -> None:
    """The younger of two policies has the nodes. At the second grant, if not at the first, it is sure to know the older."""
    async with world(api, control_plane) as made:
        await rolled(made, nodes=2)
        await made.policy(name="zz-younger")
        async with made.controller(mutant="the youngest policy has the node"):
            await made.state(DONE)
            await read(made, made.pool, "zz-younger")
            await made.roll("2")
            await made.done("2")


async def paused(api: Api, control_plane: ControlPlane) -> None:
    """The controller has told that it has read that the policy is paused."""
    async with world(api, control_plane) as made:
        await rolled(made, nodes=2)
        async with made.controller(mutant="pause is not looked at"):
            await made.state(DONE)
            await made.edit(paused=True)
            await read(made, made.pool)
            await made.roll("2")
            await made.done("2")


async def by_expressions(api: Api, control_plane: ControlPlane) -> None:
    """The policy selects one of two nodes, and the driver's pods, by expressions."""
    async with world(api, control_plane) as made:
        first, second = await made.nodes(2)
        await made.driver("1")
        nodes = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [second]}]}
        nodes["matchExpressions"].append({"key": "pool", "operator": "In", "values": [made.pool]})
        pods = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["driver"]}]}
        driver = {"name": made.driver_name, "podSelector": pods, "nodeSelector": nodes}
        driver["upgradePolicy"] = {"autoUpgrade": True, "maxParallelUpgrades": 1, "drain": {"enable": True}}
        meta = {"name": made.pool, "namespace": made.namespace}
        kind = {"apiVersion": POLICIES.api_version, "kind": POLICIES.kind}
        await made.api.create({**kind, "metadata": meta, "spec": {"driver": driver}})
        async with made.controller(mutant="a state is left out"):
            await made.state(DONE, first)
            await made.roll("2")
            await made.state("uncordon-required", first)


async def read(made: World, *policies: str) -> None:
    """Waits until the controller has told that it knows policies as they are now."""

    def told(policy: Object) -> bool:
        return bool(policy.get("status", {}).get("observedGeneration") == policy["metadata"]["generation"])

    for name in policies:
        await made.api.wait_for_object(POLICIES, name, told, made.namespace)


async def another_operator(api: Api, control_plane: ControlPlane) -> None:
    """A resource of the Network Operator is the policy."""
    try:
        async with world(api, control_plane, "ofed", domain=sources.DOMAIN, folder="overlays/network-operator") as nic:
            await nic.nodes(1)
            await sources.driver(nic, {"nvidia.com/ofed-driver": ""})
            await api.apply([sources.NIC_POLICY_CRD])
            upgrade = {"ofedDriver": {"upgradePolicy": {"maxParallelUpgrades": 1}}}
            await api.create(sources.resource_of(sources.NIC_POLICIES, "nic-cluster-policy", upgrade))
            flags = sources.source(nic, "nic-cluster-policy")
            async with nic.controller(*flags, mutant="a foreign label is written"):
                await nic.state(DONE)
    finally:
        await sources.remove(api, sources.NIC_POLICY_CRD)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (two_that_act, r"S10 .*and the Lease is held by"),
        (lease_kept, r"L6 .*did not give the Lease back"),
        (slow_succession, r"L6 .*gave the Lease back"),
        (two_policies, r"S8 .*granted by DriverUpgradePolicy/zz-younger"),
        (paused, "S8 .*granted although the policy is paused"),
        (another_operator, MUTANTS["a foreign label is written"]),
        (by_expressions, MUTANTS["a state is left out"]),
    ],
    ids=[
        "two that act",
        "the Lease is kept",
        "a slow succession",
        "of two policies the wrong one",
        "paused",
        "under another operator's policy",
        "under a policy that selects by expressions",
    ],
)
async def test_what_takes_several_to_tell_is_caught(
    api: Api, control_plane: ControlPlane, crds: None, told: Callable[[Api, ControlPlane], Awaitable[None]], said: str
):
    audited(control_plane)
    with pytest.raises(AssertionError, match=said):
        await told(api, control_plane)
