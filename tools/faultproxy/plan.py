"""What goes wrong with which request: rules in order, each seeded, counted, and to be ended."""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from tools.faultproxy.calls import Call


class Kind(StrEnum):
    """What happens to a request, or to a watch that was opened."""

    LOST = "lost"
    """The connection is reset before the request is passed on."""
    UNANSWERED = "unanswered"
    """Passed on and carried out; then the connection is reset."""
    REFUSED = "refused"
    """Answered in the server's place with a Status, after it was passed on where `applied`."""
    HTML = "html"
    """Refused as a load balancer does it: a page of HTML."""
    TRUNCATED = "truncated"
    """The answer breaks off in its middle; a watch ends in good form where its first event should be."""
    SLOW = "slow"
    """Passed on late."""
    LATE = "late"
    """Passed on at once, answered late."""
    HANGS = "hangs"
    """Never answered, until the connection is reset after `seconds`."""
    HELD = "held"
    """On its way for as long as the test wants, which then decides what becomes of it (`proxy.holds`)."""
    TRICKLE = "trickle"
    """The body comes in small pieces."""
    CUT = "cut"
    """A watch is reset in the middle of an event."""
    SILENT = "silent"
    """A watch stays open and says nothing for `seconds`; then it says everything."""
    HALF_OPEN = "half open"
    """A watch whose server has gone without a word; reset after `seconds`."""
    COALESCED = "coalesced"
    """Of several events on one object within `seconds`, a watch tells the last."""
    NO_BOOKMARKS = "no bookmarks"
    """A watch without bookmarks, but for the end of its beginning."""
    GONE = "gone"
    """A watch is told that its version is too old."""


OF_WATCHES = frozenset({Kind.CUT, Kind.SILENT, Kind.HALF_OPEN, Kind.COALESCED, Kind.NO_BOOKMARKS, Kind.GONE})
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True)
class Fault:
    """What happens."""

    kind: Kind
    code: int = 503
    applied: bool = False
    """Whether the server sees the request nevertheless."""
    retry_after: int = 0
    """Seconds; 0 for no such header."""
    seconds: float = 2.0

    def __str__(self) -> str:
        if self.kind is not Kind.REFUSED:
            return self.kind.value
        again = f", again after {self.retry_after} s" if self.retry_after else ""
        return f"{self.code}{' applied' if self.applied else ''}{again}"


@dataclass
class Rule:
    """To which requests it happens.

    Attributes:
        faults: One of them, drawn.
        verbs: Which; empty for all that the kind of fault can befall.
        resources: Plurals; empty for all.
        chance: Of each request that matches.
        times: How often at most; negative for ever.
        skip: So many that match are let pass first.
        containing: What the body has in it.
    """

    faults: tuple[Fault, ...]
    verbs: Collection[str] = ()
    resources: Collection[str] = ()
    chance: float = 1.0
    times: int = -1
    skip: int = 0
    containing: bytes = b""
    hits: int = field(default=0, init=False)

    def matches(self, call: Call, body: bytes = b"") -> bool:
        """Whether this request is one of those; a rule without verbs is for watches if its faults are."""
        if (self.resources and call.resource not in self.resources) or self.containing not in body:
            return False
        if self.verbs:
            return call.verb in self.verbs
        return (call.verb == "watch") == all(fault.kind in OF_WATCHES for fault in self.faults)


class Plan:
    """Judges each request by the first rule that applies; the same seed and the same requests make the same faults."""

    def __init__(self, seed: int = 0, rules: Iterable[Rule] = ()) -> None:
        self.rules = list(rules)
        self._random = random.Random(f"{seed} fault proxy")  # noqa: S311 - not a secret

    def judge(self, call: Call, body: bytes = b"") -> Fault | None:
        """What happens to this request; nothing for most."""
        for rule in self.rules:
            if rule.times == rule.hits or not rule.matches(call, body):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            if rule.chance < 1.0 and self._random.random() >= rule.chance:
                continue
            rule.hits += 1
            return self._random.choice(rule.faults)
        return None

    @property
    def spent(self) -> bool:
        """Whether everything has happened that was to happen a number of times."""
        return all(rule.hits == rule.times for rule in self.rules if rule.times >= 0)

    def clear(self) -> None:
        """From now on everything works."""
        self.rules.clear()
