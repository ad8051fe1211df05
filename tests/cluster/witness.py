"""The outside witness of a world: every write, of whatever, as the API server's audit log has it, and what follows from it.

A line comes a moment after its answer, and how long that moment is depends on the machine. So it is not waited for by time:
a request of the witness's own is sent when all is known that is asked about, and the log is read until that one's line is
there. What was answered before it was sent has its line before it, but for what the API server was interrupted in: of nodes
and Leases, `Evidence.unexplained` tells whether such a line is wanting still.
"""

import asyncio
import secrets

import pytest

from tests.cluster.evidence import Evidence
from tests.cluster.story import SUCCESS
from tools.controlplane.api import PATIENCE, Api
from tools.controlplane.audit import AuditLog, Request, writes
from tools.controlplane.cluster import ControlPlane

_SENTINEL = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_PAUSE = 0.02


class Witness:
    """Reads the audit log from its own begin on; it has seen nothing where the cluster was given."""

    def __init__(self, api: Api, control_plane: ControlPlane, evidence: Evidence, namespace: str) -> None:
        self._api = api
        self._evidence = evidence
        self._namespace = namespace
        self._log = AuditLog(control_plane.audit_log) if control_plane.components else None
        self._writes: list[Request] = []
        if self._log:
            self._log.skip()

    async def until_now(self) -> list[Request]:
        """Every write that was answered until now; none where the cluster was given."""
        await self._evidence.caught_up()
        if self._log is None:
            return []
        mark = f"sentinel-{secrets.token_hex(8)}"
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        await self._api.request("POST", _SENTINEL, review, fieldManager=mark)
        async with asyncio.timeout(PATIENCE):
            while not any(mark in request.uri for request in self._read()):  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(_PAUSE)
        await self._explained()
        return list(self._writes)

    async def _explained(self) -> None:
        """Waits for the lines that are known to be wanting; what has none after all this time is taken for nobody's."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while self._evidence.unexplained(self._writes) and loop.time() < deadline:
            while not self._read() and loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE)

    def _read(self) -> list[Request]:
        """The writes that are noted since the last time."""
        new = [] if self._log is None else [request for request in self._log.read() if request.is_write]
        self._writes += new
        return new

    def evicted(self) -> list[str]:
        """Names of the pods whose eviction was accepted, in order, once for each time."""
        if self._log is None:
            pytest.skip("the cluster was given: there is no audit log")
        return self._accepted()

    def check(self) -> None:
        """The controller evicts no workload twice, and deletes none. It is never an administrator."""
        accepted = self._accepted()
        assert len(set(accepted)) == len(accepted), f"evicted twice: {accepted}"
        other = [r for r in self._workloads() if r.subresource != "eviction"]
        assert not other, f"a workload is evicted, never written otherwise: {other}"
        users = {request.user for request in self._ours()}
        assert all(user.startswith("system:serviceaccount:") for user in users), f"the controller wrote as {users}"

    def _ours(self) -> list[Request]:
        self._read()
        return writes(self._writes, "driver-upgrade")

    def _accepted(self) -> list[str]:
        return [r.name for r in self._workloads() if r.subresource == "eviction" and r.code in SUCCESS]

    def _workloads(self) -> list[Request]:
        """Writes of pods of the workload namespace, by any controller."""
        return [r for r in self._ours() if r.namespace == self._namespace and r.resource == "pods"]
