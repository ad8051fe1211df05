"""The events of a watch: bytes in, typed events out.

A watch is one endless HTTP body with one JSON document per line, cut into chunks anywhere. Lines are put together here
and not by the HTTP library, so that a line has a known upper bound and an overlong one is a named error. Decoding has
two phases: the envelope with the object left raw, then the object by the envelope's type, because a Status (ERROR) or a
bare resourceVersion (BOOKMARK) is not an object of the resource. An object that cannot be decoded is an event as well:
it is reported, and the watch goes on.

Silence is told as well, since a connection may stand that nothing comes through any more: see :mod:`controller.kube.follow`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Generic, TypeVar

import msgspec

from controller.api.meta import KubeObject, ObjectMeta
from controller.kube import errors
from controller.kube.decoding import Malformed, malformed
from controller.kube.errors import LineTooLong, NetworkError
from controller.kube.resources import DECODE_ERRORS, Resource
from controller.kube.transport import Stream

T = TypeVar("T", bound=KubeObject)
MAX_LINE: Final = 8 * 2**20
"""Bytes; etcd stores at most 1.5 MiB of an object."""
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
"""Annotation of the bookmark after the last object of a WatchList's initial state."""


class Event(msgspec.Struct, Generic[T], frozen=True):
    """One event: ADDED, MODIFIED or DELETED with an object, or a malformed one in its place, or BOOKMARK with neither."""

    type: str
    resource_version: str
    object: T | None = None
    malformed: Malformed | None = None
    initial_end: bool = False


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta


_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_BOOKMARK: Final = msgspec.json.Decoder(_Bookmark)


class Silent(NetworkError):  # noqa: N818 - named for what happened
    """Nothing came for so long that the connection is taken for dead. The watch may be resumed at once."""


class LineSplitter:
    """Puts lines together from chunks."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        # The beginning of a line whose end has not come yet, in pieces, and its length.
        self._pending: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, without empty ones.

        Raises:
            LineTooLong: A line exceeds the limit, complete or not.
        """
        first, *rest = chunk.split(b"\n")
        self._pending.append(first)
        self._length += len(first)
        if self._length > self._limit:
            raise LineTooLong(f"a watch event is longer than {self._limit} bytes")
        if not rest:
            return []
        lines = [b"".join(self._pending), *rest[:-1]]
        self._pending, self._length = [rest[-1]], len(rest[-1])
        return [line for line in lines if line]


async def events(
    stream: Stream, resource: Resource[T], *, max_line: int = MAX_LINE, silence: float | None = None
) -> AsyncIterator[Event[T]]:
    """Decode a watch's stream until it ends. An incomplete last line is dropped: the next watch brings it again.

    Args:
        stream: The answer to a watch.
        resource: What it is of.
        max_line: The longest event, in bytes.
        silence: Seconds without a byte after which it is given up; None for never.

    Raises:
        ApiError: The server sent an ERROR event, such as Gone.
        LineTooLong: An event exceeds max_line.
        NetworkError: The stream was cut off, or is not a watch.
        Silent: Nothing came for too long.
    """
    splitter = LineSplitter(max_line)
    chunks = stream.chunks()
    while (chunk := await _next(chunks, silence)) is not None:
        for line in splitter.feed(chunk):
            yield decode_event(line, resource)


async def _next(chunks: AsyncIterator[bytes], silence: float | None) -> bytes | None:
    """The next piece; None at the end."""
    try:
        async with asyncio.timeout(silence):
            return await anext(chunks, None)
    except TimeoutError:
        raise Silent(f"a watch was silent for {silence:g} s") from None


def decode_event(line: bytes, resource: Resource[T]) -> Event[T]:
    """Decode one line; see :func:`events` for what it raises."""
    try:
        envelope = _ENVELOPE.decode(line)
    except DECODE_ERRORS as error:
        raise NetworkError(
            f"not a watch event of {resource}: {errors.escape(line[:200].decode(errors='replace'))}"
        ) from error
    match envelope.type:
        case "ERROR":
            raise errors.parse_error_event(envelope.object)
        case "BOOKMARK":
            return _decode_bookmark(envelope)
        case _:
            return _decode_object(envelope, resource)


def _decode_object(envelope: _Envelope, resource: Resource[T]) -> Event[T]:
    try:
        obj = resource.decoder.decode(envelope.object)
    except DECODE_ERRORS as error:
        bad = malformed(envelope.object, error)
        return Event(envelope.type, bad.resource_version, malformed=bad)
    return Event(envelope.type, obj.metadata.resource_version, obj)


def _decode_bookmark(envelope: _Envelope) -> Event[Any]:
    try:
        meta = _BOOKMARK.decode(envelope.object).metadata
    except DECODE_ERRORS:
        return Event("BOOKMARK", "")
    end = (meta.annotations or {}).get(INITIAL_EVENTS_END) == "true"
    return Event("BOOKMARK", meta.resource_version, initial_end=end)
