"""The mounted token is replaced, and the controller goes on with the new one.

A kubelet renews a token when most of its time has passed, and when it does not know the one that is mounted: after a
restart. The second takes seconds instead of the better part of an hour, and is the same to the controller.
"""

import asyncio

import orjson
import pytest

from tests.e2e.site import TIMEOUT, USER, Site
from tools.controlplane.resources import Object

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOK_SECONDS = 1.0


async def test_a_renewed_token_is_used_without_a_restart_of_the_controller(site: Site) -> None:
    pods = await site.deployed()
    before = {identity(site, pod) for pod in pods}
    await seen(site, before)
    kubelet = site.real.components["kubelet"]
    kubelet.kill()
    kubelet.start()
    site.say("restarted the kubelet")

    async with asyncio.timeout(TIMEOUT):  # files change without a word
        while before & (after := {identity(site, pod) for pod in pods}):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)
    await seen(site, after)
    again = await site.deployed()
    assert {restarts(pod) for pod in again} == {restarts(pod) for pod in pods}
    site.say("both replicas got a new token, and go on with it")


def identity(site: Site, pod: Object) -> str:
    """How the API server names the token that is mounted into a pod now."""
    return f"JTI={site.mounted_token(pod)['jti']}"


def restarts(pod: Object) -> tuple[str, int]:
    """Which container this is."""
    (container,) = pod["status"]["containerStatuses"]
    return pod["metadata"]["uid"], container["restartCount"]


async def seen(site: Site, tokens: set[str]) -> None:
    """Waits until the API server has been asked with each of these tokens; that is known by its audit log alone."""
    async with asyncio.timeout(TIMEOUT):
        while not tokens <= used(site):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


def used(site: Site) -> set[str]:
    """The tokens that the controller has used. (The API server also logs those that it issues.)"""
    found: set[str] = set()
    for line in site.cp.audit_log.read_bytes().splitlines(keepends=True):
        if USER.encode() in line and line.endswith(b"\n"):
            user = orjson.loads(line)["user"]
            if user["username"] == USER:
                found.update(user["extra"]["authentication.kubernetes.io/credential-id"])
    return found
