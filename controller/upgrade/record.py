"""Our record on the node: what a restarted controller must know, in one annotation of at most 1 KiB.

The record is written in the same PATCH as the state label, so the two never disagree by our hand; where they do, a
person relabelled the node and the label is obeyed. It keeps the first entry into each state of the attempt: deadlines
count from there, in server time, so that neither a restart nor a step back prolongs them.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec.structs import replace

from controller.upgrade.reasons import Reason
from controller.upgrade.states import IN_PROGRESS, WATCHING_PODS, State

MAX_BYTES = 1024
MAX_MESSAGE = 160

_TIMED = WATCHING_PODS
"""The states with a deadline: of the others the first entry is kept for people only."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]
"""Server time up to the year 9999: what a person may have written here must not overflow a date."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why and where the last attempt failed. Kept until the node is done."""

    reason: Reason
    state: State = State.UPGRADE_FAILED
    """Where it failed; left out where the record would grow too long."""
    target: str = ""
    pod: str = ""
    """uid of the driver pod at the failure: another uid means that someone replaced it."""
    message: str = ""
    earlier: bool = False
    """The node had already failed for an earlier target: it does not count against the new one."""


class Record(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """What we know of one driver on one node. Times are server time in seconds."""

    state: State
    since: Seconds = 0.0
    node: str = ""
    """uid of the node: a re-created node of the same name starts anew."""
    policy: str = ""
    namespace: str = ""
    target: str = ""
    """``<DaemonSet uid>@<revision>`` that the attempt is for."""
    replace: str = ""
    """uid of the driver pod that the attempt replaces."""
    restart_only: bool = False
    """The grant allowed a restart without a drain; judged again before each deletion."""
    attempt: Count = 0
    claim: bool = False
    """The node's cordon is ours."""
    recordons: Count = 0
    entered: Mapping[State, Seconds] = {}
    gone: Seconds = 0.0
    """Since when no DaemonSet wants the node any more."""
    took: Count = 0
    """Seconds that the node's last upgrade took from grant to end, for the estimate of the next; 0 where it had none."""
    failure: Failure | None = None

    @property
    def asked_for(self) -> str:
        """The uid of the pod that is replaced even where it is current; empty where only being outdated is a reason.

        So a version that is put back before the pod was touched ends the upgrade instead of restarting a good driver.
        """
        return "" if self.restart_only else self.replace

    @property
    def in_progress(self) -> bool:
        """Whether the node holds a slot."""
        return self.state in IN_PROGRESS

    @property
    def began(self) -> float:
        """When the present state was first entered in the attempt: its deadline counts from there."""
        return self.entered.get(self.state, self.since)

    def enter(self, state: State, now: float) -> "Record":
        """Return the record in another state; the first entry in the attempt is kept."""
        now = round(now, 3)
        return replace(self, state=state, since=now, entered={state: now, **self.entered})

    def restart_clock(self, now: float) -> "Record":
        """Return the record with the present state entered now: someone set it by hand."""
        now = round(now, 3)
        return replace(self, since=now, entered={**self.entered, self.state: now})


_DECODER = msgspec.json.Decoder(Record)
_ENCODER = msgspec.json.Encoder()


def decode_record(text: str | None) -> Record | None:
    """Return the record in an annotation, None where there is none or it is not ours to understand."""
    return _decoded(text) if text and len(text) <= 4 * MAX_BYTES else None


@lru_cache(maxsize=256)
def _decoded(text: str) -> Record | None:
    """One look at a node asks for the same record several times."""
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def encode_record(record: Record) -> str:
    """Return the annotation value, within ``MAX_BYTES`` whatever legal names it holds.

    What is only for people gives way first: the failure's message, then times without a deadline, then where it failed
    and the parts of a second.
    """
    text = _ENCODER.encode(record)
    for shorter in _shorter(record):
        if len(text) <= MAX_BYTES:
            break
        text = _ENCODER.encode(shorter)
    return text.decode()


def _shorter(record: Record) -> Iterator[Record]:
    if record.failure:
        record = replace(record, failure=replace(record.failure, message=""))
        yield record
    record = replace(record, entered={state: t for state, t in record.entered.items() if state in _TIMED})
    yield record
    if record.failure:
        record = replace(record, failure=replace(record.failure, state=State.UPGRADE_FAILED))
    whole = {state: int(t) for state, t in record.entered.items()}
    yield replace(record, entered=whole, since=int(record.since), gone=int(record.gone))
