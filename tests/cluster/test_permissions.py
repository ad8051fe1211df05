"""What the controller is granted is what it uses, and behind the fence a whole rollout passes: judged by the audit log."""

import aiohttp
import orjson

from tests.cluster.fence import fence
from tests.cluster.process import Process
from tests.cluster.world import DONE, FAILED, SEEDS, World
from tools.controlplane import scene
from tools.controlplane.audit import AuditLog, Request
from tools.controlplane.resources import LEASES, Resource
from tools.manifests import NAME, rules

Grant = tuple[str, str]
EVENTS = Resource("events.k8s.io/v1", "events", "Event")
CLAIM = "driver-upgrade-test"


def plain(resource: str) -> str:
    """`pods/eviction`, as the audit log names it, of a rule's resource with its group."""
    plural, _, rest = resource.partition("/")
    return plural.partition(".")[0] + (f"/{rest}" if rest else "")


def granted(cluster: World) -> set[Grant]:
    return {(verb, plain(resource)) for _, verb, resource, _ in rules(cluster.account.objects())}


def without_permission(request: Request) -> bool:
    """Whether RBAC refused it.

    A refusal of the fence that comes a moment after the Lease was taken means "not yet"; and nobody may create an Event in a
    namespace that is going, such as that of a test which is over.
    """
    said = orjson.dumps(request.response or {}).decode()
    others = ("only the pod that holds the Lease may write", "NamespaceTerminating")
    return request.code == 403 and not any(text in said for text in others)


async def scraped(controller: Process, token: str) -> int:
    """The status of one scrape by the bearer of a token, for which the controller asks the API server."""
    address = (await controller.logged(msg="metrics listening"))["address"]
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics", headers=headers) as answer:
        return answer.status


async def everything(cluster: World, *flags: str) -> None:
    """Each thing that the controller ever does: grants are for something that happens here."""
    first, *_ = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", 2)
    validator = scene.driver_daemon_set(name="validator", namespace=cluster.work, node_selector=cluster.selector())
    await cluster.api.create(validator)
    spec = scene.pod_spec(on_node=first) | {"resourceClaims": [{"name": "device", "resourceClaimName": CLAIM}]}
    await cluster.api.create(scene.pod("claims", cluster.work, spec=spec))
    await cluster.policy(
        drain={"force": True},
        podDeletion={"resourceNames": ["gpu.nvidia.com"], "force": True},
        podRestart={"maxRestarts": 1},
        validation={"podSelector": "app=validator"},
        failureThreshold=9,
    )
    metrics = ("--metrics-listen", "127.0.0.1:0", "--metrics-auth")
    async with cluster.controller("--leader-elect", *metrics, *flags) as one, cluster.controller("--leader-elect", *flags):
        await cluster.state(DONE)
        await rollouts(cluster)
        await told(cluster)
        assert await scraped(one, cluster.control_plane.token) == 200
        await cluster.edit(autoUpgrade=False)
        await cluster.state("")


async def rollouts(cluster: World) -> None:
    """One that succeeds, one that fails on every node, one that repairs them, and a driver that waits for safe loading."""
    await cluster.roll("2")
    await cluster.done("2")
    await cluster.recorder.caught_up()
    assert "validation-required" in cluster.recorder.states(cluster.names[0])
    await cluster.roll("3-crash")
    await cluster.any_in(FAILED, 2)
    await cluster.roll("4")
    await cluster.done("4")
    await cluster.annotate(cluster.names[0], **{"upgrade.driver-wait-for-safe-load": "true"})
    await cluster.nodes_are(
        lambda node: cluster.key("upgrade.driver-wait-for-safe-load") not in node["metadata"]["annotations"]
    )
    await cluster.state(DONE)


async def told(cluster: World) -> None:
    """Status of both kinds, and an Event that repeats: the second time, it is counted."""
    driver = {"upgradePolicy": {"autoUpgrade": True}}
    metadata = {"name": "seed", "namespace": cluster.namespace}
    await cluster.api.create(
        {"apiVersion": SEEDS.api_version, "kind": SEEDS.kind, "metadata": metadata, "spec": {"driver": driver}}
    )
    await cluster.api.wait_for_object(SEEDS, "seed", lambda seed: "status" in seed, cluster.namespace)
    for paused in (True, False, True, False):
        await cluster.edit(paused=paused)
        await cluster.condition("Progressing", "False", reason="Paused" if paused else "Idle")
    await cluster.api.wait_for(EVENTS, lambda events: any("series" in e for e in events), cluster.namespace)


async def test_no_permission_is_missing_and_none_is_idle(cluster: World):
    log = AuditLog(cluster.control_plane.audit_log)
    log.skip()
    await everything(cluster)
    mine = [request for request in log.read() if request.user == cluster.account.place.user]
    assert not [request for request in mine if without_permission(request)]
    used = {(request.verb, request.target) for request in mine if request.resource}
    # An informer watches from the initial state on; where an API server cannot stream that, it lists first.
    informed = {("list", target) for verb, target in used if verb == "watch"}
    assert used | informed == granted(cluster)


async def test_behind_the_fence_nothing_stands_in_the_way_of_a_rollout(cluster: World):
    log = AuditLog(cluster.control_plane.audit_log)
    log.skip()
    async with fence(cluster.api, cluster.account.place):
        await everything(cluster)
        lease = await cluster.api.get(LEASES, NAME, cluster.namespace)
    assert lease["metadata"]["resourceVersion"]
    mine = [request for request in log.read() if request.user == cluster.account.place.user]
    refused = [request for request in mine if request.code in {403, 422}]
    early = [request for request in refused if not without_permission(request)]
    assert refused == early, "only the first moments of a leader may meet a fence that does not know it yet"
    assert [request for request in mine if request.target == "pods/eviction" and request.code == 201]
    assert [request for request in mine if (request.verb, request.target) == ("delete", "pods") and request.code == 200]
