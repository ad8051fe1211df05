"""An older state, told as a watch tells the state that it begins with: made of a list of that version from etcd.

As an API server does whose cache has fallen behind, though it was asked for the newest (kubernetes#59848, etcd#15271).
"""

from collections.abc import Mapping

import orjson

from tools.faultproxy.watching import INITIAL_END

_SELECTORS = frozenset({"labelSelector", "fieldSelector"})
_OF_THE_BEGIN = frozenset({"sendInitialEvents", "resourceVersionMatch"})


def asked(query: Mapping[str, str]) -> bool:
    """Whether a watch is to begin with the state."""
    return query.get("sendInitialEvents", "") in {"1", "true"}


def listing(query: Mapping[str, str], version: str) -> dict[str, str]:
    """How to ask for the state of a version that a watch would have begun with."""
    selectors = {name: value for name, value in query.items() if name in _SELECTORS}
    return {**selectors, "resourceVersion": version, "resourceVersionMatch": "Exact"}


def following(query: Mapping[str, str], version: str) -> dict[str, str]:
    """How a watch goes on from there."""
    rest = {name: value for name, value in query.items() if name not in _OF_THE_BEGIN}
    return {**rest, "resourceVersion": version}


def told(body: bytes, version: str) -> bytes:
    """The lines of a watch that begins with the state in a list."""
    found = orjson.loads(body)
    kind = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
    end = {**kind, "metadata": {"resourceVersion": version, "annotations": {INITIAL_END: "true"}}}
    events = [{"type": "ADDED", "object": {**kind, **item}} for item in found["items"]]
    events.append({"type": "BOOKMARK", "object": end})
    return b"".join(orjson.dumps(event) + b"\n" for event in events)
