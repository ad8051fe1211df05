"""One turn of a node: the view, the record in force, and the few moves that every state has in common."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from controller.upgrade.actions import Action, Decision, ListRevisions, PatchNode
from controller.upgrade.cordon import Cordon, lifts, release
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Blocker, Reason
from controller.upgrade.record import MAX_MESSAGE, Failure, Record
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State


class Turn(msgspec.Struct, frozen=True):
    """What a state's function gets. ``record`` is in force, ``policy`` is what the node goes by, ``now`` is server time."""

    view: NodeView
    record: Record
    policy: Policy
    now: float

    def move(
        self,
        to: State,
        *,
        cordon: Cordon | None = None,
        annotations: Mapping[str, str | None] | None = None,
        reason: Reason | None = None,
        message: str = "",
        **changes: Any,
    ) -> Decision:
        """Go to another state: label, record, cordon and annotations in one PATCH."""
        record = self._done() if to is State.UPGRADE_DONE else self.record.enter(to, self.now)
        if cordon is not None:
            changes.setdefault("claim", cordon.claim)
        return self.write(replace(record, **changes), cordon, annotations, reason, message)

    def write(
        self,
        record: Record | None,
        cordon: Cordon | None = None,
        annotations: Mapping[str, str | None] | None = None,
        reason: Reason | None = None,
        message: str = "",
    ) -> Decision:
        """Write the record, and what goes with it, in one PATCH."""
        patch = PatchNode(
            replace(record, node=self.view.node.uid) if record else None,
            cordon.unschedulable if cordon else None,
            {**self._peer_clocks(), **(cordon.annotations if cordon else {}), **(annotations or {})},
            reason,
            message,
        )
        return Decision(patch.state, (patch,), reason, message)

    def wait(
        self,
        reason: Reason | None,
        message: str = "",
        *,
        actions: tuple[Action, ...] = (),
        blockers: tuple[Blocker, ...] = (),
        look_again: float | None = None,
        deadline: float | None = None,
    ) -> Decision:
        """Stay, and say why. Looks again at the deadline at the latest.

        Nothing holds a node up for longer than it has been in its state, however old the pod is that does.
        """
        again = min((t for t in (look_again, deadline) if t is not None), default=None)
        began = self.view.today(self.record.began)
        blockers = tuple(b if b.since >= began else replace(b, since=began) for b in blockers)
        return Decision(self.record.state, actions, reason, message, blockers, again, deadline)

    def fail(self, reason: Reason, message: str) -> Decision:
        """Give the attempt up. The node stays cordoned where it is; its claim stays with it."""
        earlier = self.record.failure
        target = self.view.target or self.record.target
        failure = Failure(
            reason,
            self.record.state,
            target,
            driver_uid(self.view),
            message[:MAX_MESSAGE],
            earlier is not None and (earlier.target != target or earlier.earlier),
        )
        claim = self.record.claim and self.view.node.unschedulable
        return self.move(State.UPGRADE_FAILED, reason=reason, message=message, failure=failure, claim=claim)

    def fresh(self, state: State) -> Record:
        """Return a record without an attempt's marks, for a node at rest."""
        return Record(
            state=state,
            since=round(self.now, 3),
            node=self.view.node.uid,
            policy=self.policy.key,
            namespace=self.policy.namespace,
            target=self.view.target,
            attempt=self.record.attempt,
            took=self.record.took,
        )

    def _done(self) -> Record:
        """The record at the end. How long a failed attempt lay about says nothing about the next one."""
        done, granted = self.fresh(State.UPGRADE_DONE), self.record.entered.get(State.CORDON_REQUIRED)
        if granted is None or self.record.failure is not None:
            return done
        return replace(done, took=max(1, round(self.now - self.view.today(granted))))

    def finish(self) -> Decision:
        """The driver is as it should be: uncordon if the cordon is ours to lift, else done in the same PATCH."""
        if lifts(self.view) and self.record.state is not State.UNCORDON_REQUIRED:
            return self.move(State.UNCORDON_REQUIRED)
        return self.move(State.UPGRADE_DONE, cordon=release(self.view))

    def list_revisions(self) -> Decision | None:
        """Ask for the revisions that the cache lacks, or wait for the DaemonSet controller; None where all is known.

        A state with a deadline must have looked at it before it returns this: not knowing does not prolong it.
        """
        if unlisted := self.view.unlisted:
            driver = unlisted[0][0]
            hashes = frozenset(h for s, h in unlisted if s.uid == driver.uid)
            action = ListRevisions(driver.daemonset.namespace, driver.daemonset.name, driver.uid, hashes)
            text = "listing the DaemonSet's revisions"
            return self.wait(Reason.REVISION_UNKNOWN, text, actions=(action,), deadline=self.deadline)
        if self.view.unsettled:
            text = "the DaemonSet controller has not caught up with the DaemonSet"
            return self.wait(Reason.REVISION_UNKNOWN, text, deadline=self.deadline)
        return None

    @property
    def deadline(self) -> float | None:
        """When the time of the present state is up; None where it has no end."""
        seconds = timeout_of(self.policy, self.record.state)
        return self.view.today(self.record.began) + seconds if seconds else None

    @property
    def expired(self) -> bool:
        """Whether the time of the present state is up."""
        return self.deadline is not None and self.now >= self.deadline

    def _peer_clocks(self) -> dict[str, str | None]:
        keys = (self.view.keys.jobs_start, self.view.keys.validation_start)
        return {key: None for key in keys if self.view.annotated(key)}


def timeout_of(policy: Policy, state: State) -> int:
    """Return the seconds that the policy gives a state; 0 is for ever."""
    spec = policy.spec
    seconds = {
        State.WAIT_FOR_JOBS_REQUIRED: spec.wait_for_completion.timeout_seconds,
        State.POD_DELETION_REQUIRED: spec.pod_deletion.timeout_seconds,
        State.DRAIN_REQUIRED: spec.drain.timeout_seconds,
        State.POD_RESTART_REQUIRED: spec.pod_restart.timeout_seconds,
        State.VALIDATION_REQUIRED: spec.validation.timeout_seconds if policy.validators else 0,
    }
    return seconds.get(state, 0)


def driver_uid(view: NodeView) -> str:
    """The uid by which a driver pod is recognised later; of several, the first by name."""
    return min(((p.name, p.uid) for p in view.driver_pods), default=("", ""))[1]
