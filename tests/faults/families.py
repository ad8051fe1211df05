"""The families of faults: what may go wrong between the controller and the API server, after the simulator's names."""

from collections.abc import Callable

from tools.faultproxy.plan import Fault, Kind, Rule

WRITES = ("patch", "evict", "delete")
_APPLIED = (500, 503, 504)


def _refusals(*codes: int, applied: bool = False) -> list[Rule]:
    """Each write of nodes and pods refused now and then; every code at least once early on."""
    return [Rule((Fault(Kind.REFUSED, code, applied=applied),), WRITES, ("nodes", "pods"), times=1) for code in codes]


def _each(kind: Kind, **options: float) -> list[Rule]:
    """The first write of each verb, and some of the later ones."""
    fault = Fault(kind, seconds=options.get("seconds", 1.0))
    first = [Rule((fault,), (verb,), ("nodes", "pods"), times=1) for verb in WRITES]
    return [*first, Rule((fault,), WRITES, ("nodes", "pods"), chance=0.2, times=4)]


def _watches(*kinds: Kind, seconds: float = 1.0, times: int = 3) -> list[Rule]:
    return [Rule((Fault(kind, seconds=seconds),), ("watch",), times=times) for kind in kinds]


FAMILIES: dict[str, Callable[[], list[Rule]]] = {
    "requests lost": lambda: _each(Kind.LOST),
    "answers lost": lambda: _each(Kind.UNANSWERED),
    "answers truncated": lambda: _each(Kind.TRUNCATED),
    "refused by the server": lambda: _refusals(500, 503, 504, 409, 410),
    "refused and yet done": lambda: _refusals(*_APPLIED, applied=True),
    "refused for who we are": lambda: _refusals(401, 403),
    "refused for what was asked": lambda: _refusals(404, 422, 400),
    "throttled": lambda: [
        Rule((Fault(Kind.REFUSED, 429, retry_after=1), Fault(Kind.REFUSED, 429)), WRITES, ("nodes", "pods"), times=4)
    ],
    "a load balancer's page": lambda: [Rule((Fault(Kind.HTML, 502),), WRITES, ("nodes", "pods"), times=4)],
    "slow and late": lambda: [
        Rule((Fault(Kind.SLOW, seconds=0.7), Fault(Kind.LATE, seconds=0.7)), WRITES, ("nodes", "pods"), times=6)
    ],
    "answers that never come": lambda: [Rule((Fault(Kind.HANGS, seconds=2.0),), WRITES, ("nodes", "pods"), times=3)],
    "answers in a trickle": lambda: _each(Kind.TRICKLE, seconds=0.5),
}
"""Of requests."""
WATCHES: dict[str, Callable[[], list[Rule]]] = {
    "watches cut": lambda: _watches(Kind.CUT),
    "watches silent": lambda: _watches(Kind.SILENT, seconds=2.0),
    "watches half open": lambda: _watches(Kind.HALF_OPEN, seconds=2.0),
    "events coalesced": lambda: _watches(Kind.COALESCED, seconds=0.5, times=-1),
    "bookmarks dropped": lambda: _watches(Kind.NO_BOOKMARKS, times=-1),
    "watches gone": lambda: _watches(Kind.GONE),
    "events in a trickle": lambda: _watches(Kind.TRICKLE, times=-1),
}
"""Of watches, which are opened anew for them."""
