"""Leader election over a Lease, with client-go's protocol and timing (``tools/leaderelection``), and stricter than it.

A candidate takes the Lease when it is free or has not changed for its whole duration *by our own monotonic clock since we
saw it change*; wall clocks are never compared. The leader renews it every ``retry_period``, and has lost it when the last
successful renewal *was sent* ``renew_deadline`` ago. As that is shorter than the lease's duration, which others count
from when they saw the renewal, nobody can lead before we have stopped - also when the API server hangs, as every
attempt is bounded.

Stricter than client-go: a Lease that vanishes, or loses its holder without having been given back, or is given a shorter
duration, by whomever, is not free before the holder that we saw must have stopped. So a person who edits or deletes it
does not make two leaders; the leader that is alive writes itself into it again within a ``retry_period``.

Candidates look at the Lease at least every ``retry_period``, and at the very moment at which it expires: a killed leader
is followed after ``lease_duration + retry_period`` at the latest, one that stopped after ``retry_period``.

Losing is final: what the :attr:`LeaderElector.gate` has under way is aborted, the work is cancelled and awaited, then
:meth:`LeaderElector.run` raises :class:`LeadershipLost`, and the process is to exit. When stopped, the Lease is renewed
until the work has ended and every write is answered, and only then given back: the release is the last write, and the
successor starts at once and never too early. Where a write stays unanswered the Lease is not given back but expires.

What stays is the moment in which a process was frozen and acts before it notices. The gate closes it but for one
instruction; preconditions of the writes, and in the cluster an admission policy with the Lease as its parameter, close
the rest. That policy learns of a new holder a little late: see :attr:`LeaderElector.settling`.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from controller.api.lease import Lease
from controller.kube.client import Client
from controller.kube.errors import Conflict, KubeError, NotFound
from controller.kube.leaselock import RELEASED_SECONDS, is_released, lease_body
from controller.kube.resources import LEASES
from controller.kube.writegate import WriteGate

JITTER: Final = 0.2
"""A candidate's waits are shorter than the retry period by up to this part of it, so that candidates do not collide."""
SETTLING: Final = 5.0
SHORTEST_WAIT: Final = 0.05
_TICK: Final = 0.001
"""A timer that fires a little early must not make us spin."""
_ATTEMPTS: Final = 2
"""The release is tried again once: a renewal that was cut off may have been applied meanwhile."""

logger = logging.getLogger(__name__)


class LeadershipLost(KubeError):  # noqa: N818 - an event
    """Another one leads now, or may do so soon. All work has ended; the process must exit."""


@dataclass(frozen=True, slots=True)
class LeaderElectionConfig:
    """Names and times (seconds).

    Raises:
        ValueError: The times do not fit together.
    """

    namespace: str
    name: str
    identity: str
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.identity:
            raise ValueError("identity must not be empty: use <pod name>_<pod uid>")
        if self.retry_period <= 0 or self.renew_deadline <= 2 * self.retry_period:
            raise ValueError(f"renew deadline {self.renew_deadline} must be more than 2 x retry period {self.retry_period}")
        if self.lease_duration <= self.renew_deadline:
            raise ValueError(f"lease duration {self.lease_duration} must be more than renew deadline {self.renew_deadline}")


class LeaderElector:
    """One candidate.

    Args:
        client: The API server; should have a rate limiter of its own, or none.
        config: Names and times.
        rng: Jitter of the candidates' waits.
        on_new_leader: Called with the holder's identity whenever another one is seen, empty where there is none.
        clock: Monotonic seconds; one that also counts while the machine is suspended makes a suspended leader notice.
    """

    def __init__(
        self,
        client: Client,
        config: LeaderElectionConfig,
        *,
        rng: random.Random | None = None,
        on_new_leader: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._config = config
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._on_new_leader = on_new_leader
        self._clock = clock or asyncio.get_running_loop().time
        self.gate = WriteGate(self)
        """What the leader writes must pass it: see :mod:`controller.kube.writegate`."""
        # The Lease as last seen.
        self._lease: Lease | None = None
        # Until when another one must be taken to lead; inf does not occur. -inf where the Lease is free or ours.
        self._rival_until = float("-inf")
        # When the last successful taking or renewal was sent; -inf while we do not lead.
        self._renewed_at = float("-inf")
        self._acquired_at = float("-inf")

    @property
    def leader(self) -> str:
        """Identity of the holder last seen, or empty."""
        return (self._lease and self._lease.spec.holder_identity) or ""

    @property
    def is_leader(self) -> bool:
        """Whether we lead at this very moment; to be asked before every write."""
        return self._clock() < self._renewed_at + self._config.renew_deadline

    @property
    def settling(self) -> bool:
        """Whether we took the Lease so recently that an admission policy may not know it yet: a refusal means "retry"."""
        return self._clock() < self._acquired_at + SETTLING

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, run lead, and return when it ends; cancel to stop.

        Raises:
            LeadershipLost: Leadership ended before lead did; lead was cancelled and has ended.
        """
        await self._acquire()
        work: asyncio.Task[None] = asyncio.ensure_future(_as_coroutine(lead))
        renewal: asyncio.Task[NoReturn] = asyncio.ensure_future(self._renew())
        # Also while the work is ending after a stop: from the deadline on nothing of ours may be under way.
        renewal.add_done_callback(lambda _: self.gate.abort())
        try:
            await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                await _end(work)
            finally:
                answered = await self.gate.drained()
                lost = renewal.done()
                await _end(renewal)
                if answered and not lost:
                    await self._release()
                self._renewed_at = float("-inf")
        if lost:
            renewal.result()
        await work

    async def _acquire(self) -> None:
        while True:
            attempt = asyncio.ensure_future(self._attempt())
            try:
                if await asyncio.shield(attempt):
                    break
            except asyncio.CancelledError:
                # Stopped while the Lease is perhaps being taken: left alone it would stay taken for its whole duration.
                await asyncio.wait({attempt})
                if not attempt.exception():
                    await self._release()
                raise
            except (KubeError, TimeoutError) as error:
                logger.warning("cannot acquire the lease", extra={"lease": self._config.name, "error": str(error)})
            await asyncio.sleep(self._wait())
        self._acquired_at = self._clock()

    def _wait(self) -> float:
        """How long a candidate rests: until the Lease expires, and no longer than a retry period."""
        wait = self._config.retry_period * (1 - self._rng.uniform(0, JITTER))
        left = self._rival_until - self._clock()
        return max(SHORTEST_WAIT, min(wait, left)) if left > 0 else wait

    async def _renew(self) -> NoReturn:
        error: Exception | None = None
        started = self._clock()
        while True:
            deadline = self._renewed_at + self._config.renew_deadline
            due = min(started + self._config.retry_period, deadline)
            await asyncio.sleep(max(_TICK, due - self._clock()))
            started = self._clock()
            held = True
            try:
                async with asyncio.timeout(deadline - started):
                    if self.is_leader:
                        held = await self._attempt()
                error = None
            except (KubeError, TimeoutError) as caught:
                error = caught
                logger.warning("cannot renew the lease", extra={"lease": self._config.name, "error": str(caught)})
            if not held:
                raise LeadershipLost(f"lease {self._config.name} was taken by {self.leader or 'another one'}")
            if not self.is_leader:
                why = (
                    f"timed out ({self._config.renew_deadline:g} s)"
                    if isinstance(error, TimeoutError)
                    else error or "frozen"
                )
                raise LeadershipLost(f"lease {self._config.name} was not renewed in time: {why}")

    async def _attempt(self) -> bool:
        """Take or renew the Lease if it may be; bounded, so that two attempts fit into the deadline."""
        async with asyncio.timeout(self._config.renew_deadline / 2):
            if self.is_leader:
                try:
                    return await self._write()  # saves the read while nobody interferes
                except (Conflict, NotFound):
                    pass  # someone wrote to it, or deleted it: look
            await self._read()
            if self._clock() < self._rival_until:
                self._renewed_at = float("-inf")
                return False
            return await self._write()

    async def _read(self) -> None:
        try:
            self._observe(await self._client.get(LEASES, self._config.name, self._config.namespace))
        except NotFound:
            self._observe(None)

    async def _write(self) -> bool:
        """Write ourselves into the Lease as last seen; a Conflict says that it was not the last."""
        sent = self._clock()
        lease = self._lease
        body = self._body(self._config.identity, max(1, round(self._config.lease_duration)))
        namespace = self._config.namespace
        if lease is None:
            self._observe(await self._client.create(LEASES, body, namespace))
        else:
            self._observe(await self._client.update(LEASES, self._config.name, body, namespace=namespace))
        self._renewed_at = sent
        return True

    async def _release(self) -> None:
        """Give the Lease back if it is ours. Where that fails it expires by itself."""
        try:
            async with asyncio.timeout(self._config.renew_deadline / 2):
                for _ in range(_ATTEMPTS):
                    if self._lease is None or self.leader != self._config.identity or not self.is_leader:
                        return
                    body = self._body(None, RELEASED_SECONDS)
                    try:
                        await self._client.update(LEASES, self._config.name, body, namespace=self._config.namespace)
                        return
                    except Conflict:
                        await self._read()
        except (KubeError, TimeoutError) as error:
            logger.warning("cannot release the lease", extra={"lease": self._config.name, "error": str(error)})

    def _body(self, holder: str | None, seconds: int) -> dict[str, object]:
        name, namespace = self._config.name, self._config.namespace
        return lease_body(self._lease, namespace=namespace, name=name, holder=holder, seconds=seconds, at=self._client.now())

    def _observe(self, lease: Lease | None) -> None:
        before, held = self.leader, self._lease
        self._lease = lease
        # By version, not by content: renewals are told apart even where a clock that stepped back repeats a time.
        if (lease and lease.metadata.resource_version) != (held and held.metadata.resource_version):
            self._changed()
        if self.leader != before:
            self._on_new_leader(self.leader)

    def _changed(self) -> None:
        """Say anew until when another one must be taken to lead, counted from now, when we see the change."""
        own, lease = self._config.lease_duration, self._lease
        if self.leader == self._config.identity or (lease and is_released(lease)):
            self._rival_until = float("-inf")
        elif lease and self.leader:
            # At least our own duration: whoever shortened it, the holder goes by the one that it wrote.
            self._rival_until = self._clock() + max(own, lease.spec.lease_duration_seconds or 0)
        elif self._rival_until > float("-inf"):
            # Deleted, or the holder taken out, by someone else than the holder: it may not know yet.
            self._rival_until = self._clock() + own


async def _as_coroutine(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()


async def _end(task: "asyncio.Task[object]") -> None:
    """Cancel a task and return when it has ended, however it ends."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # it is looked at elsewhere, or no longer of interest
