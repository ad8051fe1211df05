"""What one decision sees: one node, one driver, and everything that bears on them, at one moment."""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property

import msgspec

from controller.api.node import Node
from controller.api.pod import Pod
from controller.upgrade.keys import TRUE, Keys
from controller.upgrade.pods import is_ready
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Record, decode_record
from controller.upgrade.revision import DriverSet, Standing, needs_list, owner_of, standing
from controller.upgrade.states import IN_PROGRESS, PEER_STATES, WATCHING_PODS, State, parse_state


class Attempt(msgspec.Struct, frozen=True):
    """What came of the last eviction of a pod, and when the next may be sent (server time, seconds)."""

    again: float
    reason: Reason | None = None
    message: str = ""
    since: float = 0.0


class OtherDriver(msgspec.Struct, frozen=True):
    """Another driver's stake in the same node."""

    keys: Keys
    state: State
    claim: bool
    in_progress: bool
    keeps_cordon: bool


class Released(StrEnum):
    """Why a node with our record has no policy any more."""

    DISABLED = "policy disabled"
    GONE = "policy gone"
    UNSELECTED = "policy no longer selects the node"


class NodeView(msgspec.Struct, frozen=True, dict=True):
    """The input of :func:`controller.upgrade.decide.decide`.

    ``workload`` is every pod on the node, None until one consistent list was made after the cordon; ``confirmed`` tells
    whether it may be believed where it shows nothing left.
    """

    node: Node
    keys: Keys
    policy: Policy | None = None
    released: Released | None = None
    sets: tuple[DriverSet, ...] = ()
    driver_pods: tuple[Pod, ...] = ()
    workload: tuple[Pod, ...] | None = None
    unreadable: Mapping[str, str] = {}
    """Pods on the node that are there but cannot be decoded (``namespace/name``), each with what is wrong with it."""
    confirmed: bool = True
    attempts: Mapping[str, Attempt] = {}
    claims: Mapping[str, tuple[str, ...]] = {}
    """Drivers by ResourceClaim (``namespace/name``), for those that have been read."""
    others: tuple[OtherDriver, ...] = ()
    own_uid: str = ""
    moved: Mapping[float, float] = {}
    """Times in the record since which the server's clock was set, each with the seconds by which it was."""

    def today(self, written: float) -> float:
        """Return a time in the record as the server's clock tells it now."""
        return written + self.moved.get(written, 0.0)

    @cached_property
    def label(self) -> str:
        """The state label as it stands."""
        return self.node.labels.get(self.keys.state, "")

    @cached_property
    def written(self) -> Record | None:
        """The record as it stands; None where there is none, or where it is of another node of the same name."""
        record = decode_record(self.node.annotations.get(self.keys.record))
        return record if record and record.node in {"", self.node.uid} else None

    @cached_property
    def foreign_label(self) -> bool:
        """Whether the label came with a record of another node: it says nothing about this one."""
        record = decode_record(self.node.annotations.get(self.keys.record))
        return record is not None and record.node not in {"", self.node.uid}

    @cached_property
    def state(self) -> State | None:
        """The state in force; None for a label that we do not know."""
        if self.foreign_label:
            return State.UNKNOWN
        if not self.label and self.written:
            return self.written.state
        return parse_state(self.label)

    def annotated(self, key: str) -> bool:
        """Whether the node carries an annotation, with whatever value."""
        return key in self.node.annotations

    @property
    def waits_for_safe_load(self) -> bool:
        """Whether the driver's init container waits for its annotation to go."""
        return self.annotated(self.keys.safe_load)

    @property
    def requested(self) -> bool:
        """Whether an upgrade was asked for by annotation."""
        return self.node.annotations.get(self.keys.requested) == TRUE

    @property
    def skipped(self) -> bool:
        """Whether a person set the skip label."""
        return self.node.labels.get(self.keys.skip) == TRUE

    @property
    def keeps_cordon(self) -> bool:
        """Whether the node is to stay cordoned at the end."""
        return self.node.annotations.get(self.keys.initial_unschedulable) == TRUE

    @property
    def foreign_cordon(self) -> bool:
        """Whether the node is cordoned and no record of ours, for any driver, claims it."""
        return self.node.unschedulable and not self.claimed and not any(o.claim for o in self.others)

    @property
    def claimed(self) -> bool:
        """Whether our record claims the cordon."""
        return self.written is not None and self.written.claim

    @cached_property
    def driver_set(self) -> DriverSet | None:
        """The DaemonSet that the node's driver comes from: its pod's owner, else the first that wants the node."""
        for pod in self.driver_pods:
            if owner := owner_of(pod, self.sets):
                return owner
        return next((s for s in self.sets if s.wants_node), None)

    @property
    def is_wanted(self) -> bool:
        """Whether some driver DaemonSet should run here."""
        return any(s.wants_node for s in self.sets)

    @property
    def target(self) -> str:
        """``<DaemonSet uid>@<newest revision>``, empty while it is not known."""
        return self.driver_set.target if self.driver_set else ""

    def standing_of(self, pod: Pod) -> Standing:
        """Judge one driver pod against its DaemonSet."""
        return standing(pod, self.sets, self.written.target if self.written and self.written.in_progress else "")

    @cached_property
    def standings(self) -> tuple[tuple[Pod, Standing], ...]:
        """Every driver pod of the node with its standing."""
        return tuple((pod, self.standing_of(pod)) for pod in self.driver_pods)

    @property
    def outdated(self) -> tuple[Pod, ...]:
        """Driver pods that an older revision made."""
        return tuple(pod for pod, s in self.standings if s is Standing.OUTDATED)

    @property
    def unsettled(self) -> bool:
        """Whether any driver pod cannot be judged yet."""
        return any(s is Standing.UNSETTLED for _, s in self.standings)

    @property
    def unlisted(self) -> tuple[tuple[DriverSet, str], ...]:
        """DaemonSets whose revisions must be listed first, each with the hash that the cache does not know."""
        granted = self.written.target if self.written and self.written.in_progress else ""
        found = ((needs_list(pod, self.sets, granted), pod) for pod in self.driver_pods)
        return tuple((s, pod.labels.get("controller-revision-hash", "")) for s, pod in found if s)

    @property
    def to_replace(self) -> tuple[Pod, ...]:
        """Driver pods that the upgrade deletes: the outdated ones and the one that was asked for."""
        recorded = self.written.asked_for if self.written and self.written.in_progress else ""
        return tuple(p for p, s in self.standings if s is Standing.OUTDATED or (recorded and p.uid == recorded))

    @property
    def driver_ready(self) -> bool:
        """Whether there is a driver pod and every one is current, ready and staying."""
        return bool(self.driver_pods) and all(s is Standing.CURRENT and is_ready(p) for p, s in self.standings)

    @property
    def needs_upgrade(self) -> bool:
        """Whether there is work: an outdated driver pod, a waiting safe load, or a request."""
        return bool(self.outdated) or self.waits_for_safe_load or (self.requested and bool(self.driver_pods))

    @property
    def needs_workload(self) -> bool:
        """Whether all pods of the node must be looked at, and not only its driver pods."""
        if self.state in {State.UNCORDON_REQUIRED, State.UPGRADE_FAILED}:
            validated = self.policy is not None and self.policy.validators is not None
            return validated and (self.driver_ready or self.state is State.UNCORDON_REQUIRED)
        return self.state in WATCHING_PODS and (self.written is not None or self.policy is not None)

    @property
    def wanted(self) -> bool:
        """Whether an upgrade under way still has something to do before the driver is as it should be."""
        settled = bool(self.driver_pods) and all(s is Standing.CURRENT for _, s in self.standings)
        return bool(self.to_replace) or self.waits_for_safe_load or not settled


def other_driver(node: Node, keys: Keys) -> OtherDriver:
    """Read another driver's stake in a node from its label and record."""
    record = decode_record(node.annotations.get(keys.record))
    if record and record.node not in {"", node.uid}:
        record = None
    label = node.labels.get(keys.state, "")
    state = (parse_state(label) if label else record.state if record else State.UNKNOWN) or State.UNKNOWN
    keeps = node.annotations.get(keys.initial_unschedulable) == TRUE
    claim = record.claim if record else claims_by_label(node, keys, label)
    busy = state in IN_PROGRESS or (record is not None and record.in_progress)
    return OtherDriver(keys, state, claim, busy, keeps)


def claims_by_label(node: Node, keys: Keys, label: str) -> bool:
    """Whether k8s-operator-libs, which keeps no record, has cordoned this node: its state says so and key 5 is absent."""
    state = PEER_STATES.get(label) or parse_state(label)
    held = (IN_PROGRESS - {State.CORDON_REQUIRED}) | {State.UPGRADE_FAILED}
    return node.unschedulable and state in held and keys.initial_unschedulable not in node.annotations
