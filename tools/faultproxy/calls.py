"""What a request asks for, read from its method, path and query."""

from collections.abc import Mapping
from dataclasses import dataclass

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
WRITES = frozenset({*_VERBS.values(), "evict"})


@dataclass(frozen=True)
class Call:
    """One request."""

    verb: str
    """get, list, watch, create, update, patch, delete, evict."""
    resource: str
    """Plural; empty for paths that are no resources."""
    namespace: str
    name: str
    subresource: str

    def __str__(self) -> str:
        where = "/".join(part for part in (self.resource, self.namespace, self.name, self.subresource) if part)
        return f"{self.verb} {where}"


def parse(method: str, path: str, query: Mapping[str, str]) -> Call:
    """Take a request apart."""
    parts = path.strip("/").split("/")
    skip = {"api": 2, "apis": 3}.get(parts[0], len(parts))
    parts, namespace = parts[skip:], ""
    if len(parts) > 2 and parts[0] == "namespaces":  # noqa: PLR2004 - the namespace's own path has two
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    if subresource == "eviction":
        verb = "evict"
    elif method == "GET":
        watches = query.get("watch", "") in {"1", "true"}
        verb = "watch" if watches else "get" if name else "list"
    else:
        verb = _VERBS.get(method, method.lower())
    return Call(verb, resource, namespace, name, subresource)
