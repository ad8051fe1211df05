"""A readable account of a run: one line for each write that matters, with the virtual time."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.checker.events import Event
from tests.sim.apiserver import ApiServer
from tests.sim.objects import annotations, labels, node_of, ready_pod

SHORT = "nvidia.com/"


class Trace:
    """Collects lines while ``on``; keeps the last ones in any case."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.on = False
        self.lines: list[str] = []
        server.audits.append(self._audit)

    def say(self, text: str) -> None:
        if self.on:
            self.lines.append(f"{self._server.loop.time():10.3f}  {text}")

    def _audit(self, entry: Event) -> None:
        if not self.on or (entry.kind in {"poddisruptionbudgets", "driverupgradepolicies"} and entry.ours):
            return
        what = "; ".join(_changes(entry))
        where = f" on {node_of(entry.old or entry.new or {})}" if entry.kind == "pods" and (entry.old or entry.new) else ""
        code = f" -> {entry.code}" if entry.code >= 400 else ""
        self.say(f"{entry.actor:22} {entry.verb:6} {entry.kind}/{entry.key}{where}{code}  {what}")


def _changes(entry: Event) -> Iterator[str]:
    old, new = entry.old, entry.new
    if old is None or new is None:
        yield "created" if old is None else "gone"
        return
    if old is new:
        yield "(nothing changed)"
        return
    yield from _map("label ", labels(old), labels(new))
    yield from _map("annotation ", annotations(old), annotations(new))
    for field in ("deletionTimestamp", "finalizers"):
        if old["metadata"].get(field) != new["metadata"].get(field):
            yield f"{field}={new['metadata'].get(field)}"
    if entry.kind == "pods":
        yield f"{new['status'].get('phase')}{' ready' if ready_pod(new) else ''}"
    elif entry.kind != "controllerrevisions":
        yield from _map("spec.", old.get("spec") or {}, new.get("spec") or {})
        yield from _map("status.", old.get("status") or {}, new.get("status") or {})


def _map(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:  # type: ignore[type-arg,unused-ignore]
    for key in (*old, *(k for k in new if k not in old)):
        if old.get(key) != new.get(key):
            yield f"{prefix}{key.removeprefix(SHORT)}={new.get(key)}"
