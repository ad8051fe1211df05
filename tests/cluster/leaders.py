"""Several replicas of the real controller beside each other, and what the API server's audit log says of their leadership.

All times are the API server's, of one machine and one clock: when a request arrived and when it was answered. How slow the
test is, or the machine that it runs on, does not enter into them but through the replicas themselves. What was written
before what is told by resourceVersions, which one etcd counts for all resources; when an answer is noted tells nothing,
since the API server may be interrupted between giving it and noting it.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from tests.cluster.judge import LEASE
from tests.cluster.process import Process
from tests.cluster.story import SUCCESS, cut_off, precondition, uid_of, version_of
from tests.cluster.world import World
from tools.account import Replica
from tools.controlplane.api import PATIENCE
from tools.controlplane.audit import AuditLog, Request
from tools.controlplane.kubeconfig import Access
from tools.controlplane.resources import LEASES, Object

TIMEOUT = PATIENCE
SLOW_START = 150.0
LOST = 1
"""Exit code of a replica that has lost leadership."""


@dataclass(frozen=True)
class Member:
    """One replica."""

    process: Process
    identity: str
    uid: str
    access: Access
    """How it reaches the API server, with the token of its pod."""


@dataclass(frozen=True)
class Term:
    """A replica's leadership: from the write that took the Lease to the one that gave it back, if one did."""

    uid: str
    taken: Request
    renewed: Request
    released: Request | None


class Election:
    """The replicas of one world and the audit log from now on."""

    def __init__(self, cluster: World) -> None:
        self.cluster = cluster
        self._audit = AuditLog(cluster.control_plane.audit_log)
        self._audit.skip()
        self._requests: list[Request] = []
        self.members: dict[str, Member] = {}

    @asynccontextmanager
    async def replica(self, *codes: int, through: Callable[[Replica], Path] | None = None) -> AsyncIterator[Member]:
        """Runs one until the end of the block; it must end with 0, by our SIGKILL, or with one of the codes.

        It reaches the API server by its own kubeconfig, or by what `through` makes of that.
        """
        who = await self.cluster.account.replica()
        kubeconfig = through(who) if through else who.kubeconfig
        process = await Process.start(kubeconfig, self.cluster.namespace, *who.flags, "--leader-elect")
        self.cluster.processes.append(process)
        member = self.members[f"{who.name}_{who.uid}"] = Member(process, f"{who.name}_{who.uid}", who.uid, who.access)
        try:
            await _synced(process)
            yield member
        finally:
            if process.running:
                process.signal(signal.SIGCONT)
            code = await process.stop()
        assert code in {0, -signal.SIGKILL, *codes}, f"exit code {code}"
        assert not [line for line in process.lines if "exception" in line or "Traceback" in line["msg"]]

    async def leader(self, *, other_than: Member | None = None) -> Member:
        """Waits until a replica (another one) holds the Lease, and returns it."""
        not_wanted = {"", other_than.identity if other_than else ""}

        def held(lease: Object) -> bool:
            return (lease["spec"].get("holderIdentity") or "") not in not_wanted

        lease = await self.cluster.api.wait_for_object(
            LEASES, LEASE, held, self.cluster.namespace, timeout=TIMEOUT, what="a leader"
        )
        return self.members[lease["spec"]["holderIdentity"]]

    async def led(self, *members: Member) -> list[Term]:
        """Waits until the audit log has the terms of these, in this order and no others; checks and returns them."""
        wanted = [member.uid for member in members]
        async with asyncio.timeout(TIMEOUT):
            while len(self.terms()) < len(wanted):  # noqa: ASYNC110 - the log is written a moment after the answer
                await asyncio.sleep(0.05)
        self.check()
        terms = self.terms()
        assert [term.uid for term in terms] == wanted
        return terms

    async def at_rest(self, leader: Member) -> None:
        """Waits until a leader has said all that it had to say: two renewals, and nothing between them.

        So nothing of its is on the way, and the next renewal is two seconds off. A signal that stops a process between
        its last look at the clock and the sending cannot be answered by it; what it then sends after waking is refused
        by the fence, or by its precondition.
        """
        async with asyncio.timeout(TIMEOUT):
            while True:
                last = self.writes_of(leader.uid)[-2:]
                if len(last) == 2 and all(request.resource == "leases" for request in last):
                    return
                await asyncio.sleep(0.02)

    def requests(self) -> list[Request]:
        """All requests of the replicas, in the order in which they arrived."""
        uids = {member.uid for member in self.members.values()}
        self._requests += (r for r in self._audit.read() if uid_of(r) in uids)
        return sorted(self._requests, key=lambda r: r.received)

    def terms(self) -> list[Term]:
        """Who led, in order."""
        terms: list[Term] = []
        for request in carried_out([r for r in self.requests() if r.resource == "leases" and r.is_write]):
            uid = uid_of(request)
            if not request.body["spec"].get("holderIdentity"):
                assert terms[-1].uid == uid, "it gave back what it did not hold"
                terms[-1] = Term(uid, terms[-1].taken, terms[-1].renewed, request)
            elif terms and terms[-1].uid == uid and terms[-1].released is None:
                terms[-1] = Term(uid, terms[-1].taken, request, None)
            else:
                terms.append(Term(uid, request, request, None))
        return terms

    def check(self) -> None:
        """Never two that act: each write was sent in its sender's term, and was carried out before that ended."""
        terms = self.terms()
        for write in self.effects():
            uid = uid_of(write)
            mine = [n for n, term in enumerate(terms) if term.uid == uid and term.taken.received <= write.received]
            assert mine, f"{uid} wrote before it led: {write}"
            term = terms[mine[-1]]
            assert term.released is None or precedes(write, term.released), f"written after the release: {write}"
            for following in terms[mine[-1] + 1 : mine[-1] + 2]:
                assert precedes(write, following.taken), f"written in another one's term: {write}"

    def effects(self) -> Iterator[Request]:
        """Writes of replicas that were carried out, the Lease's and questions about permissions apart."""
        for request in self.requests():
            apart = request.resource in {"leases", "events", "tokenreviews", "subjectaccessreviews"}
            if request.is_write and not apart and 0 < request.code < 300:
                yield request

    def writes_of(self, uid: str) -> list[Request]:
        """All that a replica asked to change, whatever came of it."""
        return [r for r in self.requests() if uid_of(r) == uid and r.is_write]

    def looks(self, member: Member, after: Request, until: Request) -> list[Request]:
        """How a replica looked at the Lease in between."""
        mine = (r for r in self.requests() if uid_of(r) == member.uid and r.resource == "leases" and r.verb == "get")
        return [r for r in mine if after.answered <= r.received <= until.received]


def carried_out(requests: Sequence[Request]) -> Iterator[Request]:
    """Those writes of one object that took effect, in order.

    What was cut off before it was answered did if none that was answered insisted on the same version, and there is a later
    version: all that insist on one version exclude each other. It took effect some time after it arrived, and is told so.
    """
    answered = [request for request in requests if request.code in SUCCESS]
    replaced = {precondition(request) for request in answered}
    newest = max((version_of(request) for request in answered), default=0)
    for request in requests:
        before = precondition(request)
        if request.code in SUCCESS:
            yield request
        elif cut_off(request) and before and before not in replaced and int(before) < newest:
            replaced.add(before)
            yield replace(request, answered=request.received)


async def _synced(process: Process) -> None:
    """Waits until it is a standby at least; several that start at once take their time on a busy machine."""
    async with asyncio.timeout(SLOW_START), process._news:
        await process._news.wait_for(lambda: process._reader.done() or process.found(msg="caches synced"))
    assert process.found(msg="caches synced"), "the replica ended"


def precedes(write: Request, other: Request) -> bool:
    """Whether a write was carried out before another; of what is answered without a version, whether it arrived before."""
    mine, theirs = _version(write), _version(other)
    return mine < theirs if mine and theirs else write.received < other.received


def _version(write: Request) -> int:
    """Of the object that a PATCH or PUT made; 0 where the answer says none, as to evictions and deletions."""
    made = (write.response or {}).get("metadata") or {} if write.verb in {"create", "update", "patch"} else {}
    return int(made.get("resourceVersion") or 0)


def seconds(start: str, end: str) -> float:
    """Between two times of the audit log."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
