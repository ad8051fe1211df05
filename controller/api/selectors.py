"""Label selectors: the string form of kubectl and the structured form of the API, parsed, matched and printed.

Semantics follow k8s.io/apimachinery/pkg/labels: requirements are joined by "and"; ``!=`` and ``notin`` also match
objects that lack the key; an empty selector matches everything. Keys and values are held to the API's own rules, so
that a typing error is found when the policy is read and not as a selector that silently matches nothing.
"""

import re
from collections.abc import Iterator, Mapping

import msgspec

from controller.api.meta import Trimmed

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!<>(),]|[^ \t\r\n=!<>(),]+|\Z)")
_INTEGER = re.compile(r"[0-9]+")
_SYMBOLS = frozenset({"==", "!=", "=", "!", "<", ">", "(", ")", ",", ""})
_EQUALITY = {"=": "in", "==": "in", "!=": "notin", ">": ">", "<": "<"}
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_LEGAL = "at most 63 letters, digits, '-', '_' and '.', that begin and end with a letter or digit"
MAX_PREFIX = 253
MAX_INT64 = 2**63 - 1


class SelectorError(ValueError):
    """A selector that cannot be parsed. The message quotes the part that is wrong and says what would be right."""


class LabelSelectorRequirement(Trimmed, frozen=True, gc=False):
    """One ``matchExpressions`` entry."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class LabelSelector(Trimmed, frozen=True, gc=False):
    """The structured form, as in ``spec.selector`` of a DaemonSet."""

    match_labels: Mapping[str, str] | None = None
    match_expressions: tuple[LabelSelectorRequirement, ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether it has no requirement at all, and so matches every object."""
        return not self.match_labels and not self.match_expressions


class Requirement(msgspec.Struct, frozen=True, gc=False):
    """One parsed condition; ``op`` is ``in``, ``notin``, ``exists``, ``!``, ``>`` or ``<``."""

    key: str
    op: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy this condition."""
        value = labels.get(self.key)
        match self.op:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return value is not None and _ordered(value, self.op, int(self.values[0]))

    def __str__(self) -> str:
        match self.op:
            case "in" if len(self.values) == 1:
                return f"{self.key}={self.values[0]}"
            case "notin" if len(self.values) == 1:
                return f"{self.key}!={self.values[0]}"
            case "in" | "notin":
                return f"{self.key} {self.op} ({','.join(self.values)})"
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case _:
                return f"{self.key}{self.op}{self.values[0]}"


def _ordered(value: str, op: str, bound: int) -> bool:
    number = _int64(value)
    if number is None:
        return False
    return number > bound if op == ">" else number < bound


def _int64(text: str) -> int | None:
    """The number that Go's ParseInt reads: plain digits up to 2**63-1. A label's value cannot hold a sign."""
    number = int(text) if _INTEGER.fullmatch(text) else None
    return None if number is None or number > MAX_INT64 else number


class Selector(msgspec.Struct, frozen=True, gc=False):
    """A parsed selector, made by :func:`parse` or :func:`from_label_selector`; ``str`` gives its string form."""

    requirements: tuple[Requirement, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it matches everything."""
        return not self.requirements

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy every requirement."""
        return all(r.matches(labels) for r in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(r) for r in self.requirements)


EVERYTHING = Selector()


def parse(text: str) -> Selector:
    """Parse the string form, such as ``app=trainer,tier in (batch,web),!debug``.

    Raises:
        SelectorError: A term, key or value that the API server would refuse as well.
    """
    return Selector(tuple(_Parser(text).requirements()))


class _Parser:
    """Reads the tokens of a selector from left to right. ``in`` and ``notin`` are words like any other elsewhere."""

    def __init__(self, text: str) -> None:
        self._tokens = [found[1] for found in _TOKEN.finditer(text)]
        self._at = 0

    def requirements(self) -> Iterator[Requirement]:
        if self._peek() == "":
            return
        yield self._requirement()
        while (word := self._next()) != "":
            if word != ",":
                raise SelectorError(f"has {word!r} where ',' or the end is expected")
            yield self._requirement()

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return _requirement(self._key(), "!", ())
        key = self._key()
        if self._peek() in {",", ""}:
            return _requirement(key, "exists", ())
        op = self._next()
        if op in {"in", "notin"}:
            return _requirement(key, op, self._values(key, op))
        if op not in _EQUALITY:
            raise SelectorError(f"has {op!r} after {key!r}: use =, ==, !=, in, notin, > or <")
        return _requirement(key, _EQUALITY[op], (self._value(key),))

    def _key(self) -> str:
        key = self._next()
        if key in _SYMBOLS:
            raise SelectorError(f"has {_quoted(key)} where a label key is expected: remove the extra ',' or operator")
        return key

    def _value(self, key: str) -> str:
        """The value before a comma or the end; nothing is the empty value."""
        if self._peek() in {",", ""}:
            return ""
        value = self._next()
        if value in _SYMBOLS:
            raise SelectorError(f"has {value!r} where a value of {key!r} is expected")
        return value

    def _values(self, key: str, op: str) -> tuple[str, ...]:
        """The set after ``in`` or ``notin``: ``(a,b)``; nothing between them is the empty value, also in ``()``."""
        if (word := self._next()) != "(":
            raise SelectorError(f"has {_quoted(word)} after '{key} {op}': write {key} {op} (value,value)")
        values = set()
        while True:
            values.add("" if self._peek() == ")" else self._value(key))
            word = self._next()
            if word == ")":
                return tuple(sorted(values))
            if word != ",":
                raise SelectorError(f"has {_quoted(word)} in the values of {key!r}, where ',' or ')' is expected")

    def _peek(self) -> str:
        return self._tokens[self._at]

    def _next(self) -> str:
        """The next word; the empty one, which is the end, stays."""
        word = self._tokens[self._at]
        self._at += word != ""
        return word


def _quoted(token: str) -> str:
    return repr(token) if token else "the end"


def from_label_selector(selector: LabelSelector) -> Selector:
    """Parse the structured form.

    Raises:
        SelectorError: An unknown operator, or values where there must be none, or none where there must be some.
    """
    labels = sorted((selector.match_labels or {}).items())
    equal = [_requirement(key, "in", (value,)) for key, value in labels]
    return Selector((*equal, *(_from_expression(e) for e in selector.match_expressions or ())))


def _from_expression(expression: LabelSelectorRequirement) -> Requirement:
    op = _OPERATORS.get(expression.operator)
    if op is None:
        raise SelectorError(f"operator {expression.operator!r} is unknown: use {', '.join(_OPERATORS)}")
    values = tuple(sorted(set(expression.values or ())))
    if bool(values) != (op in {"in", "notin"}):
        need = "needs at least one value" if op in {"in", "notin"} else "takes no values"
        raise SelectorError(f"operator {expression.operator} of {expression.key!r} {need}")
    return _requirement(expression.key, op, values)


def _requirement(key: str, op: str, values: tuple[str, ...]) -> Requirement:
    _check_key(key)
    for value in values:
        if value and not _NAME.fullmatch(value):
            raise SelectorError(f"{value!r} is not a legal label value: {_LEGAL}")
    if op in {">", "<"} and _int64(values[0]) is None:
        raise SelectorError(f"{values[0]!r} after {key} {op} is not a whole number from 0 to {MAX_INT64}")
    return Requirement(key, op, values)


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > MAX_PREFIX or not _PREFIX.fullmatch(prefix)):
        raise SelectorError(f"key {key!r} has a prefix that is not a DNS name of at most {MAX_PREFIX} characters")
    if not _NAME.fullmatch(name):
        raise SelectorError(f"{key!r} is not a legal label key: {_LEGAL}")
