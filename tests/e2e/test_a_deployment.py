"""The Deployment becomes ready on a real node, under pod security `restricted`, with the token that the kubelet mounts."""

from pathlib import Path

import pytest

from tests.e2e.site import LABELS, NAMESPACE, TIMEOUT, USER, Site
from tools.controlplane import scene
from tools.controlplane.api import ApiError
from tools.controlplane.resources import DEPLOYMENTS, PODS
from tools.e2e import node

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_replicas_become_ready(site: Site) -> None:
    pods = await site.deployed()
    await site.api.wait_for_object(
        DEPLOYMENTS, "driver-upgrade", lambda d: d["status"].get("availableReplicas") == 2, NAMESPACE, timeout=TIMEOUT
    )
    assert {pod["spec"]["nodeName"] for pod in pods} == {node.NAME}
    assert all(status["restartCount"] == 0 for pod in pods for status in pod["status"]["containerStatuses"])
    assert await site.leader() in {pod["metadata"]["uid"] for pod in pods}
    site.say("two replicas are ready, one of them leads")


async def test_it_runs_as_nobody_on_a_root_that_cannot_be_written(site: Site) -> None:
    for pod in await site.controllers():
        about = Path("/proc", str(site.process_of(pod["metadata"]["uid"])))
        status = dict(line.split(":\t", 1) for line in (about / "status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == ["10001"] * 4
        assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
        assert status["Seccomp"] == "2", "the runtime's filter of system calls"
        root = next(line for line in (about / "mountinfo").read_text().splitlines() if line.split()[4] == "/")
        assert "ro" in root.split()[5].split(",")
    site.say("both run as uid 10001, without capabilities, filtered, on a read-only root")


async def test_nothing_less_restricted_is_admitted_beside_it(site: Site) -> None:
    pod = scene.pod("intruder", NAMESPACE, spec={"containers": [{"name": "c", "image": "local/work:1"}]})
    with pytest.raises(ApiError) as refusal:
        await site.api.create(pod)
    assert refusal.value.code == 403
    assert "restricted" in refusal.value.message


async def test_its_token_is_its_own_and_expires_within_the_hour(site: Site) -> None:
    for pod in await site.controllers():
        claims = site.mounted_token(pod)
        bound = claims["kubernetes.io"]
        assert bound["pod"]["uid"] == pod["metadata"]["uid"]
        assert bound["node"]["name"] == node.NAME
        assert claims["exp"] - claims["iat"] <= 3607  # the API server adds 7 s to tell a kubelet's tokens from others
    used = [r for r in site.requests() if r.user == USER]
    assert used
    site.say("each has a token bound to its pod and node, and the API server has seen it")


async def test_the_leader_alone_writes(site: Site) -> None:
    leader = await site.leader()
    pods = await site.api.list(PODS, NAMESPACE, labels=LABELS)
    others = {pod["metadata"]["uid"] for pod in pods} - {leader}
    by_others = [r for r in site.writes() if any(uid in r.user_agent for uid in others) and r.resource != "leases"]
    assert not by_others
