"""How far each client is behind the cluster: what its watches have told it by now, and when it first knew everything.

A checker that judges a write by what its writer could know asks this; nobody else does.
"""

import math
from collections import deque
from dataclasses import dataclass

from tests.sim.watches import Watch

FORGOTTEN = 200.0
"""Seconds after which a watch that was not begun again is not wanted any more: more than any client backs off."""
SAMPLES = 4096
"""How many moments are remembered of a client's view: more than any few seconds have events."""
HANGING = 1.0
"""Seconds that a view is behind only where a watch is held up."""
FOLLOWED = frozenset({"nodes", "daemonsets", "controllerrevisions", "driverupgradepolicies", "poddisruptionbudgets"})
"""What every controller watches as long as it lives: while it never has, it has seen nothing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A watch that has ended: until when it told everything, and when it ended."""

    kind: str
    told: float
    at: float


class Behind:
    """The views of all clients."""

    def __init__(self) -> None:
        self._views: dict[str, dict[str, Watch | Ended]] = {}
        # By actor and kind: the first watch, which tells when the kind was first known.
        self._first: dict[str, dict[str, Watch]] = {}
        # By actor and moment: how old the views were, by kind.
        self._decided: dict[tuple[str, float], dict[str, float]] = {}
        # By actor: moments, and how old its view was then.
        self._sampled: dict[str, deque[tuple[float, float]]] = {}

    def opened(self, actor: str, selection: str, watch: Watch) -> None:
        """A watch takes over from the last one of its selection."""
        first = self._first.setdefault(actor, {})
        if watch.kind not in first or first[watch.kind].told is None:
            first[watch.kind] = watch
        views = self._views.setdefault(actor, {})
        last = views.get(selection)
        watch.before = last.complete() if isinstance(last, Watch) else last.told if last else None
        views[selection] = watch

    def listed(self, actor: str, selection: str, kind: str, now: float) -> None:
        """A list was answered that no watch has followed on yet: what it told grows old until one does."""
        views = self._views.setdefault(actor, {})
        if not isinstance(views.get(selection), Watch):
            views[selection] = Ended(kind, now, now)

    def closed(self, actor: str, selection: str, watch: Watch, now: float) -> None:
        """A watch has ended; what it told stays known."""
        views = self._views.get(actor, {})
        if watch.scope.node and not watch.broken and views.get(selection) is watch:
            del views[selection]  # its client has no use for it any more
        elif views.get(selection) is watch:
            complete = watch.complete()
            before = -math.inf if watch.before is None else watch.before
            views[selection] = Ended(watch.kind, before if complete is None else complete, now)

    def sent(self, actor: str, now: float) -> None:
        """A write is sent: note how old the view is that it was decided on."""
        if len(self._decided) > 2000:
            self._decided = {key: old for key, old in self._decided.items() if key[1] > now - 600}
        self._decided[actor, now] = self._ages(actor, now)

    def decided(self, actor: str, sent: float) -> dict[str, float]:
        """How old the oldest of the writer's views of each kind was when it sent the write.

        What it had never been told of is not among them: whoever acts without having looked is no better than who looked.
        """
        return self._decided.get((actor, sent), {})

    def _ages(self, actor: str, now: float) -> dict[str, float]:
        ages: dict[str, float] = {}
        for view in self._current(actor, now):
            if (told := _told(view)) is not None:
                ages[view.kind] = max(ages.get(view.kind, 0.0), now - told)
        return ages

    def _current(self, actor: str, now: float) -> list[Watch | Ended]:
        """A client's views, but those that have had no watch for so long that nobody wants them."""
        views = self._views.get(actor, {})
        for selection, view in tuple(views.items()):
            if isinstance(view, Ended) and view.kind not in FOLLOWED and now - view.at > FORGOTTEN:
                del views[selection]
        return list(views.values())

    def lagging(self, actor: str, now: float) -> float:
        """How old the oldest of a client's views is; without end while one that it needs has never been there."""
        if not self._first.get(actor, {}).keys() >= FOLLOWED:
            return math.inf
        return now - min(told if (told := _told(v)) is not None else -math.inf for v in self._current(actor, now))

    def sample(self, actor: str, now: float) -> None:
        """Note how old a client's view is at this moment; to be called whenever anything happens."""
        self._sampled.setdefault(actor, deque(maxlen=SAMPLES)).append((now, self.lagging(actor, now)))

    def lagged(self, actor: str, now: float, seconds: float) -> float:
        """How old a client's view was at the worst within the last seconds: what it does now was decided in that time.

        A view that was behind when something last happened before may have caught up at any time since.
        """
        begin, samples = now - seconds, self._sampled.get(actor) or deque()
        while len(samples) > 1 and samples[1][0] <= begin:
            samples.popleft()
        aged = (lag + max(0.0, begin - at) if lag > HANGING else lag for at, lag in samples)
        return max(aged, default=self.lagging(actor, now))

    def seeing_since(self, actor: str) -> float:
        """When a client first knew everything that it must before it acts; without end while it does not."""
        first = self._first.get(actor, {})
        told = [watch.told for kind, watch in first.items() if kind in FOLLOWED]
        known = [at for at in told if at is not None]
        return max(known) if len(known) == len(FOLLOWED) else math.inf


def _told(view: Watch | Ended) -> float | None:
    """Until when a view shows everything; None where it has never shown anything."""
    if isinstance(view, Ended):
        return view.told if view.told > -math.inf else None
    return view.complete() or view.before
