"""A thief has the controller's token: what permissions and admission fence leave to him, tried on a real API server.

Every attack is refused for the reason that is expected, by the permissions (`cannot ... resource`) or the fence. Beside it
stands a neighbour that differs in what makes the attack one, and passes: so a refusal is never that of a broken request.
All are sent with dryRun: they go through authorization and admission, and change nothing.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.cluster.fence import (
    LEADER,
    RECORD,
    STATE,
    Call,
    Fenced,
    accepted,
    deleted,
    evicted,
    fence_of,
    patched,
    path_of,
    refused,
)
from tools.controlplane import scene
from tools.controlplane.api import Api, ApiError
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import LEASES, NODES, PODS, SERVICE_ACCOUNTS, Object
from tools.manifests import NAME

RBAC_GROUP = "/apis/rbac.authorization.k8s.io/v1"
FENCE_GROUP = "/apis/admissionregistration.k8s.io/v1"
POLICY_GROUP = "/apis/nvidia.com/v1"
Make = Callable[[Fenced], Call]


class Attack(NamedTuple):
    """What is tried, why it is refused, and the neighbour that passes; by whom each is sent, as attributes of Fenced."""

    attack: Make
    says: str
    twin: Make
    by: str = "leader"
    twin_by: str = "leader"


def cannot(verb: str, resource: str) -> str:
    return f'cannot {verb} resource "{resource}"'


def done(f: Fenced) -> Call:
    """What the leader may do with a node: cordon, state and record in one PATCH."""
    marks = {"labels": {STATE: "cordon-required"}, "annotations": {RECORD: '{"state": "cordon-required"}'}}
    return f.on_node({"metadata": marks, "spec": {"unschedulable": True}})


def spec(**fields: Any) -> Make:
    return lambda f: f.on_node({"spec": fields})


def label(key: str, value: str | None) -> Make:
    return lambda f: f.label(key, value)


def annotation(key: str, value: str | None) -> Make:
    return lambda f: f.annotation(key, value)


def by_admin(make: Make, says: str) -> Attack:
    """Something that nobody but an administrator may do: he can, the thief cannot."""
    return Attack(make, says, make, twin_by="api")


def lease(name: str, **holder: Any) -> Make:
    def put(f: Fenced) -> Call:
        body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": name}, "spec": holder}
        return Call("POST", LEASES.path(f.place.namespace), body)

    return put


def held_by(holder: Callable[[Fenced], str | None]) -> Make:
    return lambda f: f.held_by(holder(f))


def identity(number: int) -> Callable[[Fenced], str]:
    return lambda f: f"{f.replicas[number].name}_{f.replicas[number].uid}"


def policy(f: Fenced) -> Object:
    driver = {"name": "gpu", "podSelector": {"matchLabels": {"app": "driver"}}, "upgradePolicy": {"autoUpgrade": True}}
    metadata = {"name": "gpu", "namespace": f.place.drivers}
    return {"apiVersion": "nvidia.com/v1", "kind": "DriverUpgradePolicy", "metadata": metadata, "spec": {"driver": driver}}


def policies(f: Fenced, rest: str = "") -> str:
    return f"{POLICY_GROUP}/namespaces/{f.place.drivers}/driverupgradepolicies{rest}"


KEY = "nvidia.com/gpu-driver-upgrade"
OFED_STATE, OFED_RECORD = "nvidia.com/ofed-driver-upgrade-state", "nvidia.com/ofed-driver-upgrade.record"
RECORD_OF = "{}" + " " * 1022
NOT_SPEC, NOT_LABEL = "of a node's spec, only unschedulable", "of a node's labels, only the upgrade state"
NOT_ANNOTATION, NOT_STATE = "of a node's annotations, only the controller's own", "this is no upgrade state"
NOT_DRIVER = "only driver pods may be deleted"
MINE = "upgrade state and record are the controller's"
NODE_ATTACKS = {
    "taint that evicts": Attack(spec(taints=[{"key": "x", "effect": "NoExecute"}]), NOT_SPEC, done),
    "taint removed": Attack(spec(taints=None), NOT_SPEC, spec(unschedulable=True)),
    "provider id": Attack(spec(providerID="evil://1"), NOT_SPEC, spec(unschedulable=True)),
    "pod range": Attack(spec(podCIDR="10.9.0.0/24", podCIDRs=["10.9.0.0/24"]), NOT_SPEC, spec(unschedulable=None)),
    "foreign label added": Attack(label("node-role.kubernetes.io/control-plane", ""), NOT_LABEL, done),
    "foreign label changed": Attack(label("example.com/kept", "no"), NOT_LABEL, label(STATE, "upgrade-required")),
    "foreign label removed": Attack(label("example.com/kept", None), NOT_LABEL, label(STATE, None)),
    "label that looks like ours": Attack(label(f"{STATE}-too", "upgrade-done"), NOT_LABEL, label(STATE, "upgrade-failed")),
    "label of another domain": Attack(
        label("x.nvidia.com/gpu-driver-upgrade-state", "upgrade-done"), NOT_LABEL, label(STATE, "drain-required")
    ),
    "skip label of a person": Attack(label(f"{KEY}.skip", "true"), NOT_LABEL, label(STATE, "upgrade-required")),
    "state that is none": Attack(label(STATE, "owned"), NOT_STATE, label(STATE, "upgrade-required")),
    "foreign annotation added": Attack(annotation("example.com/new", "x"), NOT_ANNOTATION, done),
    "foreign annotation changed": Attack(annotation("example.com/kept", "no"), NOT_ANNOTATION, annotation(RECORD, "{} ")),
    "foreign annotation removed": Attack(annotation("example.com/kept", None), NOT_ANNOTATION, annotation(RECORD, None)),
    "a request made up": Attack(
        annotation("nvidia.com/ofed-driver-upgrade-requested", "true"), NOT_ANNOTATION, annotation(f"{KEY}-requested", None)
    ),
    "a driver told to wait": Attack(
        annotation(f"{KEY}.driver-wait-for-safe-load", "true"),
        NOT_ANNOTATION,
        annotation(f"{KEY}.node-initial-state.unschedulable", "true"),
    ),
    "another operator's mark": Attack(
        annotation(f"{KEY}-requestor-mode", None), NOT_ANNOTATION, annotation(f"{KEY}-requested", None)
    ),
    "record too long": Attack(
        annotation(RECORD, RECORD_OF + " "), "a record has at most 1 KiB", annotation(RECORD, RECORD_OF)
    ),
    "long text in a mark": Attack(
        annotation(f"{KEY}.node-initial-state.unschedulable", "x" * 999),
        "other annotations say true",
        annotation(f"{KEY}.node-initial-state.unschedulable", "true"),
    ),
    "finalizer": Attack(lambda f: f.on_node({"metadata": {"finalizers": ["example.com/x"]}}), "finalizers and owners", done),
    "owner": Attack(
        lambda f: f.on_node(
            {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "x"}]}}
        ),
        "finalizers and owners",
        done,
    ),
    "node deleted": by_admin(lambda f: deleted(NODES.path(name=f.node)), cannot("delete", "nodes")),
    "node replaced": by_admin(lambda f: Call("PUT", NODES.path(name=f.node), scene.node(f.node)), cannot("update", "nodes")),
    "node status": by_admin(
        lambda f: patched(NODES.path(name=f.node, subresource="status"), {"status": {"phase": "Running"}}),
        cannot("patch", "nodes/status"),
    ),
    "node created": by_admin(lambda _: Call("POST", NODES.path(), scene.node("evil")), cannot("create", "nodes")),
}
LEADER_ATTACKS = {
    "node patched by a standby": Attack(done, LEADER, done, by="standby"),
    "node patched with a token of no pod": Attack(done, LEADER, done, by="unbound"),
    "eviction by a standby": Attack(lambda f: evicted(f.web), LEADER, lambda f: evicted(f.web), by="standby"),
    "eviction with a token of no pod": Attack(lambda f: evicted(f.web), LEADER, lambda f: evicted(f.web), by="unbound"),
    "driver pod deleted by a standby": Attack(
        lambda f: deleted(path_of(f.driver), f.driver["metadata"]["uid"]),
        LEADER,
        lambda f: deleted(path_of(f.driver), f.driver["metadata"]["uid"]),
        by="standby",
    ),
    "status by a standby": Attack(
        lambda f: patched(policies(f, "/gpu/status"), {"status": {"observedGeneration": 9}}),
        LEADER,
        lambda f: patched(policies(f, "/gpu/status"), {"status": {"observedGeneration": 9}}),
        by="standby",
    ),
    "another named as the holder": Attack(held_by(identity(1)), "may name only itself", held_by(identity(0))),
    "the leader unseated": Attack(
        held_by(lambda _: None), "only its holder may give the Lease back", held_by(lambda _: None), by="standby"
    ),
    "the Lease deleted": by_admin(lambda f: deleted(LEASES.path(f.place.namespace, "spare")), cannot("delete", "leases")),
    "the Lease deleted by an administrator": Attack(
        lambda f: deleted(LEASES.path(f.place.namespace, NAME)),
        "the Lease of the election stays",
        lambda f: deleted(LEASES.path(f.place.namespace, "spare")),
        by="api",
        twin_by="api",
    ),
    "the Lease taken with a token of no pod": Attack(
        held_by(identity(0)), "may name only itself", held_by(identity(1)), by="unbound", twin_by="standby"
    ),
    "another lease written": by_admin(
        lambda f: patched(LEASES.path(f.place.namespace, "spare"), {"spec": {"holderIdentity": "x"}}),
        cannot("patch", "leases"),
    ),
    "another lease created": Attack(lease("more"), "only the Lease of the election", held_by(identity(0))),
    "a node's lease": by_admin(lambda _: Call("GET", LEASES.path("kube-node-lease")), cannot("list", "leases")),
}
POD_ATTACKS = {
    "eviction without a uid": Attack(
        lambda f: evicted(f.web, uid=False), "an eviction must say the pod's uid", lambda f: evicted(f.web)
    ),
    "driver pod deleted without a uid": Attack(
        lambda f: deleted(path_of(f.driver)),
        "a deletion must say the pod's uid",
        lambda f: deleted(path_of(f.driver), f.driver["metadata"]["uid"]),
    ),
    "workload pod deleted": Attack(
        lambda f: deleted(path_of(f.web), f.web["metadata"]["uid"]), cannot("delete", "pods"), lambda f: evicted(f.web)
    ),
    "DaemonSet's pod deleted outside of driver namespaces": Attack(
        lambda f: deleted(path_of(f.agent), f.agent["metadata"]["uid"]),
        cannot("delete", "pods"),
        lambda f: deleted(path_of(f.driver), f.driver["metadata"]["uid"]),
    ),
    "Deployment's pod deleted in a driver namespace": Attack(
        lambda f: deleted(path_of(f.operator), f.operator["metadata"]["uid"]),
        NOT_DRIVER,
        lambda f: deleted(path_of(f.orphan), f.orphan["metadata"]["uid"]),
    ),
    "somebody's pod deleted in a driver namespace": Attack(
        lambda f: deleted(path_of(f.stranger), f.stranger["metadata"]["uid"]),
        NOT_DRIVER,
        lambda f: deleted(path_of(f.orphan), f.orphan["metadata"]["uid"]),
    ),
    "all pods deleted at once": Attack(
        lambda f: deleted(PODS.path(f.place.drivers)),
        cannot("deletecollection", "pods"),
        lambda f: deleted(path_of(f.driver), f.driver["metadata"]["uid"]),
    ),
    "pod created": by_admin(
        lambda f: Call("POST", PODS.path(f.place.drivers), scene.pod("evil", f.place.drivers)), cannot("create", "pods")
    ),
    "pod patched": by_admin(
        lambda f: patched(path_of(f.web), {"metadata": {"labels": {"x": "y"}}}), cannot("patch", "pods")
    ),
    "command run in a pod": Attack(
        lambda f: Call("POST", f"{path_of(f.web)}/exec?command=id&stdout=true"),
        cannot("create", "pods/exec"),
        lambda f: evicted(f.web),
    ),
}
CLUSTER_ATTACKS = {
    "secrets": by_admin(lambda f: Call("GET", f"/api/v1/namespaces/{f.work}/secrets"), cannot("list", "secrets")),
    "config maps": by_admin(lambda f: Call("GET", f"/api/v1/namespaces/{f.work}/configmaps"), cannot("list", "configmaps")),
    "a token of its own": by_admin(
        lambda f: Call(
            "POST",
            SERVICE_ACCOUNTS.path(f.place.namespace, NAME, "token"),
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 99999}},
        ),
        cannot("create", "serviceaccounts/token"),
    ),
    "more permissions": by_admin(
        lambda f: patched(f"{RBAC_GROUP}/clusterroles/{f.place.name(NAME)}", {"rules": []}),
        cannot("patch", "clusterroles"),
    ),
    "a binding to all permissions": by_admin(
        lambda f: Call(
            "POST",
            f"{RBAC_GROUP}/clusterrolebindings",
            {
                "metadata": {"name": "evil"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": f.place.namespace}],
            },
        ),
        cannot("create", "clusterrolebindings"),
    ),
    "policy changed": by_admin(
        lambda f: patched(policies(f, "/gpu"), {"spec": {"driver": {"upgradePolicy": {"maxParallelUpgrades": 0}}}}),
        cannot("patch", "driverupgradepolicies"),
    ),
    "policy deleted": by_admin(lambda f: deleted(policies(f, "/gpu")), cannot("delete", "driverupgradepolicies")),
    "policy's definition changed": by_admin(
        lambda _: patched(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/driverupgradepolicies.nvidia.com",
            {"metadata": {"labels": {"x": "y"}}},
        ),
        cannot("patch", "customresourcedefinitions"),
    ),
    "the fence deleted": by_admin(
        lambda f: deleted(f"{FENCE_GROUP}/validatingadmissionpolicies/{f.place.name('driver-upgrade-nodes')}"),
        cannot("delete", "validatingadmissionpolicies"),
    ),
    "the fence unbound": by_admin(
        lambda f: deleted(f"{FENCE_GROUP}/validatingadmissionpolicybindings/{f.place.name('driver-upgrade-nodes')}"),
        cannot("delete", "validatingadmissionpolicybindings"),
    ),
    "DaemonSet changed": by_admin(
        lambda f: patched(
            f"/apis/apps/v1/namespaces/{f.place.drivers}/daemonsets/driver", {"metadata": {"labels": {"x": "y"}}}
        ),
        cannot("patch", "daemonsets"),
    ),
    "state written by others": Attack(label(STATE, "pod-restart-required"), MINE, label("any", "label"), "other", "other"),
    "state removed by others": Attack(label(STATE, None), MINE, label("example.com/kept", None), "other", "other"),
    "record written by others": Attack(
        annotation(RECORD, '{"state": "upgrade-done"}'), MINE, annotation(f"{KEY}-requested", None), "other", "other"
    ),
    "record removed by others": Attack(annotation(RECORD, None), MINE, label(STATE, None), "other", "api"),
    "state and record removed by others": Attack(
        lambda f: f.on_node({"metadata": {"labels": {STATE: None}, "annotations": {RECORD: None}}}),
        MINE,
        lambda f: f.on_node({"metadata": {"labels": {STATE: None}, "annotations": {RECORD: None}}}),
        "other",
        "api",
    ),
    "state of a driver that we have, beside that of one that we have not": Attack(
        lambda f: f.on_node({"metadata": {"labels": {STATE: "drain-required", OFED_STATE: "drain-required"}}}),
        MINE,
        label(OFED_STATE, "drain-required"),
        "other",
        "other",
    ),
    "record made up by others for a driver that we have not": Attack(
        lambda f: f.on_node({"metadata": {"labels": {OFED_STATE: "upgrade-done"}, "annotations": {OFED_RECORD: "{}"}}}),
        MINE,
        label(OFED_STATE, "upgrade-done"),
        "other",
        "other",
    ),
}
ATTACKS = {**NODE_ATTACKS, **LEADER_ATTACKS, **POD_ATTACKS, **CLUSTER_ATTACKS}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fenced(control_plane: ControlPlane, crds: None) -> AsyncIterator[Fenced]:
    async with Api(control_plane.access) as api, Fenced(api, control_plane, f"f-{secrets.token_hex(3)}") as made:
        await api.create(policy(made))
        spare = {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": {"name": "spare", "namespace": made.place.namespace},
        }
        await api.create(spare)
        yield made


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", ATTACKS)
async def test_it_is_refused_and_its_neighbour_is_not(fenced: Fenced, name: str):
    made = ATTACKS[name]
    with pytest.raises(ApiError) as error:
        await made.attack(fenced).by(getattr(fenced, made.by))
    assert made.says in error.value.message
    assert (error.value.code, error.value.reason) == (403, "Forbidden")
    await made.twin(fenced).by(getattr(fenced, made.twin_by))


@pytest.mark.asyncio(loop_scope="session")
async def test_nobody_else_may_be_impersonated(fenced: Fenced):
    session, path = fenced.leader.session, NODES.path()
    async with session.get(path, headers={"Impersonate-User": "system:admin"}) as answer:
        assert answer.status == 403
        assert "impersonate" in await answer.text()
    async with session.get(path) as answer:
        assert answer.status == 200


@pytest.mark.asyncio(loop_scope="session")
async def test_a_former_leader_writes_nothing_once_another_holds_the_lease(fenced: Fenced):
    """However long it was frozen, and whatever it believes: its token is not the holder's any more."""
    writes = [done(fenced), evicted(fenced.web), deleted(path_of(fenced.driver), fenced.driver["metadata"]["uid"])]
    try:
        await fenced.hold(fenced.replicas[1])
        for write in writes:
            await refused(lambda write=write: write.by(fenced.leader), LEADER)  # type: ignore[misc]
            await write.by(fenced.standby)
        await fenced.hold(None)
        for write in writes:
            await refused(lambda write=write: write.by(fenced.standby), LEADER)  # type: ignore[misc]
            await refused(lambda write=write: write.by(fenced.leader), LEADER)  # type: ignore[misc]
    finally:
        await fenced.hold(fenced.replicas[0])
        await fenced.passes(done(fenced))


@pytest.mark.asyncio(loop_scope="session")
async def test_a_driver_that_was_given_back_is_its_operators_again(fenced: Fenced):
    """Its state was ours as long as our record stood beside it; an operator's account may merely patch nodes."""
    theirs = fenced.label(STATE, "cordon-required")
    with pytest.raises(ApiError, match=MINE):
        await theirs.by(fenced.other)
    put_back = fenced.on_node({"metadata": {"labels": {STATE: None}, "annotations": {RECORD: None}}})
    await put_back.by(fenced.leader, dry=False)
    try:
        await theirs.by(fenced.other, dry=False)
        await fenced.label(STATE, None).by(fenced.other, dry=False)
    finally:
        ours = {"labels": {STATE: "upgrade-done"}, "annotations": {RECORD: "{}"}}
        await fenced.on_node({"metadata": ours}).by(fenced.leader, dry=False)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_node_with_very_many_labels_is_not_too_much_for_the_fence(fenced: Fenced):
    """The API server gives an admission policy a budget of steps; a node that exceeds it could never be cordoned."""
    labels = {f"label-{n}.example.com/with-a-long-name": "v" * 63 for n in range(2000)}
    annotations = {f"annotation-{n}.example.com/with-a-long-name": "v" * 63 for n in range(2000)}
    await fenced.api.patch(NODES, fenced.node, {"metadata": {"labels": labels, "annotations": annotations}})
    await done(fenced).by(fenced.leader)
    with pytest.raises(ApiError, match=NOT_LABEL):
        await fenced.label("label-7.example.com/with-a-long-name", "x").by(fenced.leader)
    await fenced.label("any", "label").by(fenced.other)
    with pytest.raises(ApiError, match=MINE):
        await fenced.label(STATE, "pod-restart-required").by(fenced.other)
    gone = {"metadata": {"labels": dict.fromkeys(labels), "annotations": dict.fromkeys(annotations)}}
    await fenced.api.patch(NODES, fenced.node, gone)


@pytest.mark.asyncio(loop_scope="session")
async def test_without_its_lease_the_fence_stands_in_nobody_elses_way(fenced: Fenced):
    """Were it told to deny then, nodes and pods could not be changed by anybody; what may be written stays fenced."""
    api, binding = fenced.api, fenced.place.name("driver-upgrade-lease-stays")
    await deleted(f"{FENCE_GROUP}/validatingadmissionpolicybindings/{binding}").by(api, dry=False)
    try:
        await accepted(lambda: deleted(LEASES.path(fenced.place.namespace, NAME)).by(api, dry=False), "the Lease")
        # From here on the API server knows that it is gone:
        await accepted(lambda: done(fenced).by(fenced.standby), LEADER)
        await fenced.label("any", "label").by(api)
        await deleted(path_of(fenced.web)).by(api)
        with pytest.raises(ApiError, match=NOT_SPEC):
            await fenced.on_node({"spec": {"taints": None}}).by(fenced.standby)
    finally:
        await api.apply(fence_of(fenced.place))
        await fenced.settled()
