"""A faithful in-memory API server: the verbs that controllers use, on the MVCC store, with an audit log of every write.

What is modelled follows the real server: one order of writes; optimistic concurrency (a merge patch or update that names
another resourceVersion is a Conflict); a patch that changes nothing writes nothing; ``generation`` counts spec changes;
``status`` is a subresource; deletion is graceful for pods that are bound and waits for finalizers; lists come in pages
of one revision; :mod:`tests.sim.watches` and :mod:`tests.sim.eviction` hold the rest.
"""

from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any, NamedTuple

import orjson

from tests.checker.events import Event
from tests.sim.clocks import ServerTime
from tests.sim.defaults import defaulted
from tests.sim.loop import VirtualLoop
from tests.sim.objects import EPOCH, Obj, assoc, key_of, merge_patch, node_of, terminal
from tests.sim.routes import CONDITIONAL, COUNTS_GENERATION, HAS_STATUS, KIND_OF, KINDS, SERVERS_OWN, Route, new_object
from tests.sim.selectors import Scope
from tests.sim.store import Store, Version
from tests.sim.validation import complaint, trimmed

ORPHAN = "orphan"
"""The finalizer of what is deleted and leaves behind what it owns."""


class Call:
    """One request on its way."""

    __slots__ = ("actor", "body", "method", "params", "route", "sent")

    def __init__(
        self, actor: str, method: str, where: Route | None, params: Mapping[str, str], body: bytes | None, sent: float
    ) -> None:
        self.actor = actor
        self.method = method
        self.route = where
        self.params = params
        self.body: Any = orjson.loads(body) if body else None
        self.sent = sent

    @property
    def verb(self) -> str:
        """GET, LIST, WATCH, PATCH, EVICT, …."""
        if self.route and self.route.sub == "eviction":
            return "EVICT"
        if self.method == "GET":
            return "WATCH" if "watch" in self.params else "GET" if self.route and self.route.name else "LIST"
        return self.method


class RefusedError(Exception):
    """An answer that is not a success."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        causes: list[Obj] | None = None,
        retry_after: int = 0,
        about: Obj | None = None,
        again: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after
        self.about = about
        self.again = again
        """A continue token that goes on in a newer revision."""

    def answer(self, server: "ApiServer") -> "Answer":
        details: Obj = dict(self.about or {})
        if self.causes:
            details["causes"] = self.causes
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        headers = {"Date": server.date()}
        if self.retry_after:
            headers["Retry-After"] = str(self.retry_after)
        return Answer(self.code, headers, status_body(self.code, self.reason, self.message, details, self.again))


class Answer(NamedTuple):
    """An HTTP answer."""

    code: int
    headers: Mapping[str, str]
    body: bytes


def status_body(code: int, reason: str, message: str, details: Obj | None = None, again: str = "") -> bytes:
    """A Status; of a success, only that."""
    status: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {"continue": again} if again else {}, "code": code}
    if code < 400:
        return orjson.dumps({**status, "status": "Success"})
    status |= {"status": "Failure", "reason": reason, "message": message}
    return orjson.dumps(status | ({"details": details} if details else {}))


class ApiServer:
    """The server. Cluster components write by :meth:`apply`, :meth:`edit` and :meth:`delete`; clients by :meth:`handle`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.store = Store(KINDS, loop.time)
        self.audits: list[Callable[[Event], None]] = []
        self.evict: Callable[[Call], Answer] | None = None
        self.requests: dict[str, int] = {}
        self._uids = 0
        self._pages: dict[str, tuple[list[bytes], int]] = {}
        self.clock = ServerTime(loop.time)
        self.frozen: dict[str, int] = {}
        """By resource, the revision that reads which allow an older one are answered from: a cache that is behind."""
        self._date = (0, "")

    def now(self) -> float:
        """Server time in seconds since the epoch."""
        return EPOCH + self.clock.now()

    def date(self) -> str:
        second = int(self.now())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]

    def stamp(self, ahead: float = 0.0) -> str:
        """A timestamp as objects carry them."""
        text = formatdate(int(self.now() + ahead))
        day, month, year, clock = text.split()[1:5]
        months = "JanFebMarAprMayJunJulAugSepOctNovDec"
        return f"{year}-{months.index(month) // 3 + 1:02}-{int(day):02}T{clock}Z"

    def get(self, kind: str, key: str) -> Obj | None:
        return self.store.get(kind, key)

    # Writes of the cluster's own components.

    def apply(self, actor: str, kind: str, obj: Obj) -> Obj:
        """Create or replace an object."""
        old = self.store.get(kind, key_of(obj))
        return self._commit(Call(actor, "PUT" if old else "POST", None, {}, None, self.loop.time()), kind, old, obj)

    def edit(self, actor: str, kind: str, key: str, path: tuple[str, ...], value: Any) -> None:
        """Set one value of an object, if the object is there and the value is another."""
        old = self.store.get(kind, key)
        if old is None:
            return
        new = assoc(old, path, value)
        if new != old:
            self._commit(Call(actor, "PATCH", None, {}, None, self.loop.time()), kind, old, new)

    def delete(self, actor: str, kind: str, key: str, grace: int | None = None) -> None:
        """Delete an object as its kind is deleted."""
        old = self.store.get(kind, key)
        if old is not None:
            self.remove(Call(actor, "DELETE", None, {}, None, self.loop.time()), kind, old, grace)

    # Requests.

    def handle(self, call: Call) -> Answer:
        """Carry out one request and return its answer."""
        counted = f"{call.verb} {call.route.kind if call.route else '?'}"
        self.requests[counted] = self.requests.get(counted, 0) + 1
        try:
            return self._dispatch(call, known(call))
        except RefusedError as refused:
            self._refused(call, refused)
            return refused.answer(self)

    def _dispatch(self, call: Call, where: Route) -> Answer:
        match call.verb:
            case "GET":
                return self._answer(self.existing(where))
            case "LIST":
                return self._list(call, where)
            case "PATCH":
                return self._answer(self._patch(call, where))
            case "PUT":
                return self._answer(self._update(call, where))
            case "POST":
                return self._answer(self._create(call, where), 201)
            case "DELETE":
                return self._delete(call, where)
            case "EVICT" if self.evict is not None:
                return self.evict(call)
        raise RefusedError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def existing(self, where: Route) -> Obj:
        found = self.store.get(where.kind, where.key)
        if found is None:
            raise RefusedError(404, "NotFound", f'{where.resource} "{where.name}" not found', about=where.details)
        return found

    def _answer(self, obj: Obj, code: int = 200) -> Answer:
        version = self.store.tables[self._kind_of(obj)].get(key_of(obj))
        body = version.json if version is not None and version.obj is obj else orjson.dumps(obj)
        return Answer(code, {"Date": self.date()}, body)

    @staticmethod
    def _kind_of(obj: Obj) -> str:
        return str(obj["kind"]).lower() + "s" if obj["kind"][-1] != "y" else str(obj["kind"]).lower()[:-1] + "ies"

    def _patch(self, call: Call, where: Route) -> Obj:
        old = self.existing(where)
        _check_version(call, where, old)
        return self._commit(call, where.kind, old, self._merged(old, call.body, where))

    @staticmethod
    def _merged(old: Obj, body: Obj, where: Route) -> Obj:
        if where.sub == "status":
            return merge_patch(old, {"status": body.get("status")})  # type: ignore[no-any-return]
        if where.kind in HAS_STATUS:
            body = {name: value for name, value in body.items() if name != "status"}
        return _accepted(where, defaulted(where.kind, merge_patch(old, body)))

    def _update(self, call: Call, where: Route) -> Obj:
        old = self.existing(where)
        if where.kind in CONDITIONAL and not call.body["metadata"].get("resourceVersion"):
            said = "Invalid value: 0: must be specified for an update"
            cause = {"reason": "FieldValueInvalid", "message": said, "field": "metadata.resourceVersion"}
            text = f'{where.resource} "{where.name}" is invalid: metadata.resourceVersion: {said}'
            raise RefusedError(422, "Invalid", text, causes=[cause], about=where.details)
        _check_version(call, where, old)
        kept = {name: old["metadata"][name] for name in SERVERS_OWN if name in old["metadata"]}
        new = {**call.body, "kind": old["kind"], "metadata": {**call.body["metadata"], **kept}}
        if where.sub == "status":
            new = {**old, "status": call.body.get("status")}
        elif "status" in old and where.kind in HAS_STATUS:
            new["status"] = old["status"]
        return self._commit(call, where.kind, old, _accepted(where, new))

    def _create(self, call: Call, where: Route) -> Obj:
        name = call.body["metadata"]["name"]
        meant = where._replace(name=name)
        self.check_namespace(meant)
        if self.store.get(where.kind, meant.key):
            text = f'{where.resource} "{name}" already exists'
            raise RefusedError(409, "AlreadyExists", text, about=meant.details)
        return self._commit(call, where.kind, None, _accepted(meant, new_object(meant, call.body)))

    def check_namespace(self, where: Route) -> None:
        """Nothing new in a namespace that is being deleted. One that was never made is let pass: few tests make theirs."""
        namespace = self.store.get("namespaces", where.namespace)
        if namespace is not None and "deletionTimestamp" in namespace["metadata"]:
            told = f"namespace {where.namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": told, "field": "metadata.namespace"}
            why = f"unable to create new content in namespace {where.namespace} because it is being terminated"
            text = f'{where.resource} "{where.name}" is forbidden: {why}'
            raise RefusedError(403, "Forbidden", text, causes=[cause], about=where.details)

    def _delete(self, call: Call, where: Route) -> Answer:
        old = self.existing(where)
        options = call.body or {}
        check_uid(where, old, options)
        if options.get("propagationPolicy") == "Orphan":
            finalizers = [*old["metadata"].get("finalizers", ()), ORPHAN]
            old = {**old, "metadata": {**old["metadata"], "finalizers": finalizers}}
        last = self.remove(call, where.kind, old, options.get("gracePeriodSeconds"))
        if where.kind in {"pods", "nodes"} or self.store.get(where.kind, where.key) is not None:
            return self._answer(last)
        gone = {**where.details, "uid": old["metadata"]["uid"]}
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": gone}
        return Answer(200, {"Date": self.date()}, orjson.dumps(status))

    def _commit(self, call: Call, kind: str, old: Obj | None, new: Obj) -> Obj:
        """Write one object as it shall be, counting its generation, and log it. No change is no write."""
        new = trimmed(kind, new)
        meta = new["metadata"]
        if old is None:
            self._uids += 1
            meta = {**meta, "uid": f"{kind[:3]}-{self._uids:06}", "creationTimestamp": self.stamp()}
            if kind in COUNTS_GENERATION:
                meta["generation"] = 1
            new = {**new, "metadata": meta}
        elif new == old:
            self._log(call, kind, old, old, 200)
            return old
        elif kind in COUNTS_GENERATION and new.get("spec") != old.get("spec"):
            new = {**new, "metadata": {**meta, "generation": meta.get("generation", 0) + 1}}
        if old is not None and "deletionTimestamp" in meta and _let_go(old, new):
            return self._gone(call, kind, old)
        stored = self.store.put(kind, new).obj
        self._log(call, kind, old, stored, 200)
        return stored

    def remove(self, call: Call, kind: str, old: Obj, grace: int | None = None) -> Obj:
        """Delete an object, gracefully where it is a bound pod, and only marked while finalizers hold it."""
        meta = old["metadata"]
        if kind == "namespaces" and "deletionTimestamp" not in meta and old["spec"].get("finalizers"):
            old = {**old, "status": {"phase": "Terminating"}}
        seconds = _grace(kind, old, grace)
        if not seconds and not meta.get("finalizers") and not (kind == "namespaces" and old["spec"].get("finalizers")):
            return self._gone(call, kind, old)
        if "deletionTimestamp" in meta and seconds >= meta.get("deletionGracePeriodSeconds", 0):
            self._log(call, kind, old, old, 200)
            return old
        marks = {"deletionTimestamp": self.stamp(seconds), "deletionGracePeriodSeconds": seconds}
        stored = self.store.put(kind, {**old, "metadata": {**meta, **marks}}).obj
        self._log(call, kind, old, stored, 200)
        return stored

    def _gone(self, call: Call, kind: str, old: Obj) -> Obj:
        last = self.store.remove(kind, key_of(old)).obj
        self._log(call, kind, old, None, 200)
        return last

    def _list(self, call: Call, where: Route) -> Answer:
        params = call.params
        token = params.get("continue", "")
        if token and params.get("resourceVersion"):
            raise RefusedError(400, "BadRequest", "specifying resource version is not allowed when using continue")
        if token:
            items, rv = self._page(call, where, token)
        else:
            items, rv = self._chosen(call, where, after="")
        limit = int(params.get("limit") or 0) or len(items)
        page, rest = items[:limit], items[limit:]
        more = ""
        if rest:
            more = f"{rv}-{len(self._pages)}-{len(rest)}:{orjson.loads(page[-1])['metadata']['name']}"
            self._pages[more] = (rest, rv)
        head = orjson.dumps({"resourceVersion": str(rv), "continue": more})
        body = b'{"kind":"List","metadata":' + head + b',"items":[' + b",".join(page) + b"]}"
        return Answer(200, {"Date": self.date()}, body)

    def _state(self, kind: str, at_least: str) -> tuple[dict[str, Version], int]:
        """What a list is answered from: the newest state, or where any not older than one will do, the cache's."""
        if at_least:
            self.check_reached(at_least)
        rv = max(self.frozen.get(kind, self.store.rv), int(at_least)) if at_least else self.store.rv
        table = self.store.as_of(kind, rv) if rv < self.store.rv else None
        return (self.store.tables[kind], self.store.rv) if table is None else (table, rv)

    def check_reached(self, version: str) -> None:
        """Refuse a version that is not there yet: the real server waits for it for three seconds first."""
        if int(version) > self.store.rv:
            text = f"Timeout: Too large resource version: {version}, current: {self.store.rv}"
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise RefusedError(504, "Timeout", text, causes=[cause], retry_after=1)

    def _chosen(self, call: Call, where: Route, after: str) -> tuple[list[bytes], int]:
        """What a list selects, in the order of keys, and the revision."""
        scope = scope_of(call)
        table, rv = self._state(where.kind, call.params.get("resourceVersion", ""))
        found = sorted((key, v) for key, v in table.items() if scope.matches(v.obj))
        return [v.json for _, v in found if v.obj["metadata"]["name"] > after], rv

    def _page(self, call: Call, where: Route, token: str) -> tuple[list[bytes], int]:
        """The rest of a list; where its revision is gone, the client may go on from the same place in a newer one."""
        if token in self._pages:
            return self._pages[token]
        begin, _, after = token.partition(":")
        if not after:
            raise RefusedError(400, "BadRequest", "invalid continue token: continue key is not valid")
        if begin != "newer":
            text = "The provided continue parameter is too old to display a consistent list result."
            raise RefusedError(410, "Expired", text, again=f"newer:{after}")
        return self._chosen(call, where, after)

    def expire_pages(self) -> None:
        """All continue tokens are too old from now on."""
        self._pages.clear()

    def _log(self, call: Call, kind: str, old: Obj | None, new: Obj | None, code: int) -> None:
        sub = call.route.sub if call.route else ""
        key = key_of(new or old or {"metadata": {"name": ""}})
        self._audit(call, kind, key, sub, old, new, code)

    def _audit(self, call: Call, kind: str, key: str, sub: str, old: Obj | None, new: Obj | None, code: int) -> None:
        now, clock = self.loop.time(), self.now()
        entry = Event(
            now, call.sent, call.actor, call.verb, kind, key, sub, old, new, call.body, code, "", clock, self.clock.set_by
        )
        for audit in self.audits:
            audit(entry)

    def _refused(self, call: Call, refused: RefusedError) -> None:
        if call.route is None or call.method == "GET":
            return
        where = call.route
        old = self.store.get(where.kind, where.key)
        self._audit(call, where.kind, where.key, where.sub, old, old, refused.code)


def known(call: Call) -> Route:
    """The call's route; refuses what the server does not know."""
    if call.route is None:
        raise RefusedError(404, "NotFound", "the server could not find the requested resource")
    return call.route


def scope_of(call: Call) -> Scope:
    """What a list or watch selects; refuses what cannot be parsed."""
    params, where = call.params, known(call)
    try:
        return Scope(where.namespace, params.get("labelSelector", ""), params.get("fieldSelector", ""))
    except ValueError as error:
        raise RefusedError(400, "BadRequest", str(error)) from None


def check_uid(where: Route, obj: Obj, options: Obj) -> None:
    """The precondition of deletions and evictions."""
    uid, there = (options.get("preconditions") or {}).get("uid"), obj["metadata"]["uid"]
    if uid and uid != there:
        kind = f"{obj['kind']}.{where.group}" if where.group else obj["kind"]
        why = f"the UID in the precondition ({uid}) does not match the UID in record ({there})"
        text = f'Operation cannot be fulfilled on {kind} "{where.name}": {why}'
        raise RefusedError(409, "Conflict", text, about={**where.details, "kind": obj["kind"]})


def _check_version(call: Call, where: Route, old: Obj) -> None:
    """The precondition of patches and updates."""
    given = (call.body.get("metadata") or {}).get("resourceVersion")
    if given and given != old["metadata"]["resourceVersion"]:
        text = f'Operation cannot be fulfilled on {where.resource} "{where.name}": the object has been modified'
        raise RefusedError(409, "Conflict", text, about=where.details)


def _accepted(where: Route, obj: Obj) -> Obj:
    """The object, if it may be stored so."""
    if cause := complaint(obj):
        kind = f"{KIND_OF[where.kind]}.{where.group}" if where.group else KIND_OF[where.kind]
        text = f'{kind} "{where.name}" is invalid: {cause["field"]}: {cause["message"]}'
        raise RefusedError(422, "Invalid", text, causes=[cause], about={**where.details, "kind": KIND_OF[where.kind]})
    return obj


def _let_go(old: Obj, new: Obj) -> bool:
    """Whether the last finalizer of an object being deleted is gone. A pod with grace waits for its kubelet besides."""
    released = bool(old["metadata"].get("finalizers")) and not new["metadata"].get("finalizers")
    return released and not old["metadata"].get("deletionGracePeriodSeconds")


def _grace(kind: str, obj: Obj, asked: int | None) -> int:
    """The grace period that counts: none for what no kubelet runs."""
    if kind != "pods" or not node_of(obj) or terminal(obj):
        return 0
    if asked is not None and asked >= 0:
        return asked
    return int(obj["spec"].get("terminationGracePeriodSeconds", 30))
