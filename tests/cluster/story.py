"""Whose write made which version: the audit log's side of the evidence.

A version and the request that made it are joined by the object and the resourceVersion of the answer. Of several with the
same answer one made it, and the others changed nothing. Where the sender was killed, or its connection cut, before it was
answered, the log has no answer to join by, though the write may have been carried out: then the precondition tells. Of all
writes that insist on one version of an object, or on one pod, one alone can have made the next version, and every other
author's has its answer in the log.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from tests.checker import Event
from tools.controlplane.audit import Request
from tools.controlplane.resources import Object

AGENT = "driver-upgrade/"
IGNORED = frozenset({"events", "leases", "tokenreviews", "subjectaccessreviews"})
VERBS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}
SUCCESS = range(200, 300)
_LEASES = "leases"
_REFUSED = frozenset(range(400, 500)) - {499}
"""Answers that say that nothing was done; 499 is noted where the client has left."""


@dataclass(frozen=True)
class Version:
    """One version of one object, as a watch showed it, or the audit log."""

    number: int
    kind: str
    key: str
    obj: Object
    deleted: bool
    seen: float
    told: bool = True
    """Whether it was made while we looked on; else the log from our begin on may not say whose it is."""


class Story:
    """All requests, to be told in the order of the versions that they made: of each version, `author`, then `event`."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._by_version: dict[tuple[str, str, str], Request] = {}
        self._evictions: dict[str, list[Request]] = {}
        self._unanswered: dict[tuple[str, str, str], list[Request]] = {}
        self._others: list[Request] = []
        answers: dict[tuple[str, str, str], list[Request]] = {}
        for request in sorted(requests, key=_answered):
            made = str(version_of(request) or "")
            if made and request.code in SUCCESS and request.subresource != "eviction":
                answers.setdefault((request.resource, key_of(request), made), []).append(request)
            else:
                self._without_version(request)
        for where, candidates in answers.items():
            self._one_made(where, candidates)

    def _one_made(self, where: tuple[str, str, str], candidates: list[Request]) -> None:
        """Who insisted on another version made this one, for it is not what it was; else who came first."""
        able = [r for r in candidates if not _changed_nothing(r)]
        maker = min(able, key=lambda r: (not _insisted(r), r.received), default=None)
        if maker is not None:
            self._by_version[where] = maker
        for request in candidates:
            if request is not maker and ours(request) and request.resource not in IGNORED:
                insort(self._others, request, key=_answered)

    def _without_version(self, request: Request) -> None:
        accepted = request.code in SUCCESS
        if request.subresource == "eviction" and accepted:
            self._evictions.setdefault(key_of(request), []).append(request)
        elif not ours(request) or (request.resource in IGNORED and request.resource != _LEASES):
            return
        elif cut_off(request) and (condition := precondition(request)):
            self._unanswered.setdefault((request.resource, key_of(request), condition), []).append(request)
        elif request.resource not in IGNORED:
            self._others.append(request)

    def author(self, version: Version, old: Object | None) -> Request | None:
        """Who made a version, where the log says so; to be asked once of each, in order.

        An unanswered write of ours is told as if it had been answered when it was seen to have been carried out.
        """
        request = self._by_version.get((version.kind, version.key, str(version.number)))
        if request is None and version.kind == "pods" and _leaves(old, version.obj):
            request = self._eviction(version)
        return request or self._carried_out(version, old)

    def _eviction(self, version: Version) -> Request | None:
        """The accepted eviction of this pod: the first that has not been told yet."""
        waiting = self._evictions.get(version.key, [])
        return waiting.pop(0) if waiting else None

    def _carried_out(self, version: Version, old: Object | None) -> Request | None:
        """Our unanswered write that must have made this version, which nobody else's has."""
        conditions = [] if old is None or version.deleted else [old["metadata"]["resourceVersion"]]
        if version.kind == "pods" and _leaves(old, version.obj):
            conditions.append(version.obj["metadata"]["uid"])
        for condition in conditions:
            if waiting := self._unanswered.get((version.kind, version.key, condition)):
                return waiting.pop(0)
        return None

    def refused_before(self, moment: float, current: Mapping[tuple[str, str], Object]) -> Iterator[Event]:
        """Our writes without an effect, answered until then; the rest of the evictions at the end."""
        while self._others and seconds_of(self._others[0].answered) <= moment:
            request = self._others.pop(0)
            old = current.get((request.resource, key_of(request)))
            yield _event(request, old, old)


def event(version: Version, old: Object | None, author: Request | None) -> Event:
    """One version, and whose it is; without an author, it is the cluster's own."""
    new = None if version.deleted else version.obj
    if author is None:
        verb = "POST" if old is None else "DELETE" if new is None else "PATCH"
        return Event(version.seen, version.seen, "cluster", verb, version.kind, version.key, "", old, new, None, 200)
    told = _event(author, old, new)
    if author.code in SUCCESS:
        return told
    return told._replace(code=SUCCESS.start, at=min(told.at, max(told.sent, version.seen)))


def cut_off(request: Request) -> bool:
    """Whether nobody was told what became of a write: it may have been carried out."""
    return request.code not in SUCCESS and request.code not in _REFUSED


def precondition(request: Request) -> str:
    """The version that a PATCH or PUT insists on, or the uid that a deletion or an eviction does."""
    body = request.body if isinstance(request.body, dict) else {}
    options = body.get("deleteOptions") or body
    uid = (options.get("preconditions") or {}).get("uid")
    return str(uid or (body.get("metadata") or {}).get("resourceVersion") or "")


def uid_of(request: Request) -> str:
    """The pod that asked: the last word of the user agent."""
    return request.user_agent.rpartition(" ")[2]


def ours(request: Request) -> bool:
    """Whether the controller asked, by its program; the command line has another agent, and is people."""
    return request.user_agent.startswith(AGENT)


def key_of(request: Request) -> str:
    """Of the object that a request is about: ``namespace/name``, or the name."""
    return f"{request.namespace}/{request.name}" if request.namespace else request.name


def name_of(request: Request) -> str:
    """Of the object in the answer."""
    return str(((request.response or {}).get("metadata") or {}).get("name", ""))


def version_of(request: Request) -> int:
    """Of the object that a write made; 0 where the answer says none."""
    return int(((request.response or {}).get("metadata") or {}).get("resourceVersion") or 0)


def seconds_of(text: str) -> float:
    """Seconds since the epoch of one of the log's times."""
    return datetime.fromisoformat(text).timestamp()


def _answered(request: Request) -> str:
    return request.answered


def _insisted(request: Request) -> bool:
    return request.verb in {"patch", "update"} and bool(precondition(request))


def _changed_nothing(request: Request) -> bool:
    """A write that insists on a version, and is answered with it."""
    return _insisted(request) and precondition(request) == str(version_of(request))


def _event(request: Request, old: Object | None, new: Object | None) -> Event:
    verb = "EVICT" if request.subresource == "eviction" else VERBS[request.verb]
    sub = "status" if request.subresource == "status" else ""
    person = "driver-upgrade" in request.user_agent or request.client == "kubectl"
    who = "controller" if ours(request) else "admin" if person else request.client
    sent, at = seconds_of(request.received), seconds_of(request.answered)
    body = request.body if ours(request) else None
    pod = uid_of(request) if ours(request) and request.resource not in IGNORED - {_LEASES} else ""
    return Event(at, sent, who, verb, request.resource, key_of(request), sub, old, new, body, request.code, pod)


def _leaves(old: Object | None, obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"] and (old is None or "deletionTimestamp" not in old["metadata"])
