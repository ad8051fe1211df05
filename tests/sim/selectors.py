"""Label and field selectors as an API server reads them; written apart from the controller's own, which it judges."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tests.sim.objects import Obj, labels, node_of

Labels = Mapping[str, str]
Question = Callable[[Labels], bool]
_PART = re.compile(r"(?:[^,(]|\([^)]*\))+")
_SET = re.compile(r"\s*(\S+)\s+(in|notin)\s*\(([^)]*)\)\s*")
_KEY = re.compile(r"\s*!?\s*[-\w./]+\s*")
_EQUAL = re.compile(r"\s*([^!=\s]+)\s*(==|=|!=)\s*([^=\s(]*)\s*")


@lru_cache(maxsize=1024)
def parse(text: str) -> Question:
    """Return the question that a selector's text asks of labels; an empty text asks nothing."""
    parts = [_requirement(part) for part in _PART.findall(text) if part.strip()]
    return lambda found: all(part(found) for part in parts)


def _requirement(text: str) -> Question:
    if match := _SET.fullmatch(text):
        key, operator, listed = match.groups()
        values = frozenset(v.strip() for v in listed.split(","))
        if operator == "in":
            return lambda found: found.get(key) in values
        return lambda found: found.get(key) not in values
    if match := _EQUAL.fullmatch(text):
        key, operator, value = match.groups()
        return (lambda found: found.get(key) != value) if operator == "!=" else (lambda found: found.get(key) == value)
    key = text.strip()
    if key.startswith("!"):
        return lambda found: key[1:].strip() not in found
    return lambda found: key in found


def from_object(selector: Mapping[str, Any] | None) -> Question:
    """``matchLabels`` and ``matchExpressions``; None selects nothing."""
    if selector is None:
        return lambda _: False
    wanted = selector.get("matchLabels") or {}
    parts = []
    for e in selector.get("matchExpressions") or ():
        values = ",".join(e.get("values") or ())
        forms = {"In": f"{e['key']} in ({values})", "NotIn": f"{e['key']} notin ({values})", "Exists": e["key"]}
        parts.append(parse(forms.get(e["operator"], f"!{e['key']}")))
    return lambda found: all(found.get(k) == v for k, v in wanted.items()) and all(part(found) for part in parts)


def check(text: str) -> None:
    """Refuse what is no selector at all.

    Raises:
        ValueError: As an API server says it.
    """
    parts = _PART.findall(text)
    for part in parts if ",".join(parts) == text else [text]:
        if not (_SET.fullmatch(part) or _EQUAL.fullmatch(part) or _KEY.fullmatch(part)):
            raise ValueError(f"unable to parse requirement: {part!r} is no requirement")


class Scope:
    """What a list or watch asks for: namespace, label selector and field selector."""

    __slots__ = ("_labels", "_name", "_unbound", "namespace", "node")

    def __init__(self, namespace: str, label_selector: str, field_selector: str) -> None:
        self.namespace = namespace
        self.node = self._name = ""
        self._unbound = False
        check(label_selector)
        self._labels = parse(label_selector) if label_selector else None
        for part in filter(None, field_selector.split(",")):
            field, _, value = part.partition("=")
            if field == "spec.nodeName":
                self.node, self._unbound = value, not value
            elif field == "metadata.name":
                self._name = value
            else:
                raise ValueError(f"field label not supported: {field}")

    def matches(self, obj: Obj) -> bool:
        meta = obj["metadata"]
        return (
            (not self.namespace or meta.get("namespace") == self.namespace)
            and (not self.node or node_of(obj) == self.node)
            and (not self._unbound or not node_of(obj))
            and (not self._name or meta["name"] == self._name)
            and (self._labels is None or self._labels(labels(obj)))
        )
