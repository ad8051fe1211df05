"""Reads the API server's audit log: the outside witness of who asked for what, and of every write in order.

One JSON line per answered request (the policy leaves out the stage in which a request has only arrived); a watch has two,
when it is opened and when it ends, and counts once. Lines are appended while we read: a last line without its newline is
left for the next read.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One request as the API server saw it."""

    received: str
    """When it arrived, RFC 3339 with microseconds; comparable as text."""
    answered: str
    verb: str
    """get, list, watch, create, update, patch, delete, deletecollection."""
    resource: str
    """Plural name, empty for paths that are no resources (`/readyz`)."""
    subresource: str
    namespace: str
    name: str
    user: str
    user_agent: str
    code: int
    """HTTP status; 0 if the server died or the client left before an answer."""
    uri: str
    body: Any = None
    """What a write sent, where the audit level is RequestResponse."""
    response: Any = None

    @property
    def client(self) -> str:
        """The program: the user agent up to its version, `kube-controller-manager` say."""
        return self.user_agent.partition("/")[0].partition(" ")[0]

    @property
    def target(self) -> str:
        """What it asked for: `pods/eviction`, `nodes`, or the path where it is no resource."""
        if not self.resource:
            return self.uri.partition("?")[0]
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def is_write(self) -> bool:
        """Whether it would change something."""
        return self.verb in WRITES


class AuditLog:
    """The log of one API server, read piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._open: set[str] = set()

    def skip(self) -> None:
        """Goes to the present end: what happened until now is not read."""
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0:  # back to the end of the last whole line
                begin = max(0, end - 65536)
                file.seek(begin)
                newline = file.read(end - begin).rfind(b"\n")
                if newline >= 0:
                    self._offset = begin + newline + 1
                    return
                end = begin

    def read(self) -> Iterator[Request]:
        """Yields what was written since the last read."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                event = orjson.loads(line)
                if self._is_first(event):
                    yield parse(event)

    def _is_first(self, event: dict[str, Any]) -> bool:
        """Whether this is the first line of its request; only an opened watch is remembered."""
        if event["verb"] == "watch" and event["stage"] == "ResponseComplete" and not self._whole(event):
            return False
        identity = event["auditID"]
        if event["stage"] == "ResponseStarted":
            self._open.add(identity)
            return True
        if identity in self._open:
            self._open.discard(identity)
            return False
        return True

    def _whole(self, event: dict[str, Any]) -> bool:
        """Whether a watch's last line is of one whose first we read; of one that was opened before, we skipped that."""
        refused = event.get("responseStatus", {}).get("code", 0) >= 400  # noqa: PLR2004
        return refused or event["auditID"] in self._open


def parse(event: dict[str, Any]) -> Request:
    """Turns an audit.k8s.io/v1 Event into a Request."""
    reference = event.get("objectRef", {})
    return Request(
        received=event["requestReceivedTimestamp"],
        answered=event["stageTimestamp"],
        verb=event["verb"],
        resource=reference.get("resource", ""),
        subresource=reference.get("subresource", ""),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        user=event.get("user", {}).get("username", ""),
        user_agent=event.get("userAgent", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        uri=event["requestURI"],
        body=event.get("requestObject"),
        response=event.get("responseObject"),
    )


def count(requests: Iterable[Request]) -> Counter[tuple[str, str, str]]:
    """Requests by (client, verb, target)."""
    return Counter((request.client, request.verb, request.target) for request in requests)


def writes(requests: Iterable[Request], client: str = "") -> list[Request]:
    """Writes (of one client, where given) in the order in which they were answered."""
    chosen = (request for request in requests if request.is_write and client in ("", request.client))
    return sorted(chosen, key=lambda request: request.answered)
