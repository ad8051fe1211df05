"""What goes wrong, seeded: processes die, requests and answers get lost or refused, watches break, people interfere."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.apiserver import Call
from tests.sim.meddling import Meddler
from tests.sim.network import FINE, Verdict, error_answer
from tests.sim.routes import UNWATCHED
from tests.sim.trouble import Trouble
from tests.sim.world import KINDS

if TYPE_CHECKING:
    from tests.sim.trace import Trace
    from tests.sim.world import World

WRITES = {"PATCH", "EVICT", "DELETE", "POST", "PUT"}
FOUR = frozenset({"crash", "errors", "watch", "meddle"})
TOGETHER = {"all": FOUR, "storm": FOUR | frozenset(KINDS)}
MOMENTS = ("before", "committed", "after")
CODES = (
    (401, "Unauthorized", 0),
    (403, "Forbidden", 0),
    (409, "Conflict", 0),
    (410, "Expired", 0),
    (429, "TooManyRequests", 2),
    (429, "TooManyRequests", 0),
    (500, "InternalError", 0),
    (503, "", 0),
    (503, "ServiceUnavailable", 1),
    (504, "Timeout", 0),
)


def kinds_of(names: str) -> frozenset[str]:
    """Kinds of faults by their names, joined by ``+``; ``all`` and ``storm`` are several together."""
    return frozenset[str]().union(*(TOGETHER.get(name, {name}) for name in names.split("+")))


class Faults:
    """Decides about each request, and disturbs watches and the cluster on its own while a phase of faults lasts."""

    def __init__(self, world: "World", trace: "Trace") -> None:
        self._world = world
        self._trace = trace
        self.rng = random.Random(f"{world.plan.seed} faults")
        # Events have dice of their own: what is told of a story does not change it.
        self._telling = random.Random(f"{world.plan.seed} telling")
        self.count = 0
        self.writes = 0
        """Writes of ours so far, for crashes at a given one; counted anew from the first rollout on."""
        self.earlier = 0
        """The writes before that."""
        self.crash_at: dict[int, str] = dict(world.plan.early)
        self.active = bool(self.crash_at)
        self.refuses: Callable[[Call], bool] | None = None
        """Requests that are refused as long as this says so."""
        self._given = {key: list(due) for key, due in world.plan.verdicts.items()}
        kinds = kinds_of(world.plan.faults)
        self._crashes, self._errors = "crash" in kinds, "errors" in kinds
        self._watches, self._meddles = "watch" in kinds, "meddle" in kinds
        self._rate = self.rng.choice([0.005, 0.02, 0.06])
        self._phase = 0
        self._trouble = Trouble(world, self, kinds)

    @property
    def any(self) -> bool:
        return self._crashes or self._errors or self._watches or self._meddles or bool(self._trouble.kinds)

    def begin(self) -> None:
        """Begin a phase."""
        if not self._phase:
            self.crash_at = dict(self._world.plan.crashes)
            self.earlier, self.writes = self.writes, 0
        self.active = True
        self._phase += 1
        if self._watches:
            self._later(self._disturb_watches)
        if self._meddles:
            Meddler(self._world, self, self._trace).begin(self._phase)
        self._trouble.begin(self._phase)

    def end(self) -> float:
        """From now on everything works; returns until when a watch may still hang."""
        hangs = self._trouble.end()
        self.active = bool(self.crash_at) or any(self._given.values())
        self._world.network.lags.clear()
        self._world.network.lags.update(self._world.plan.lags)
        for watch in self._world.watches.all():
            if watch.silent_until > self._world.loop.time() and not watch.hangs:
                watch.silent_until = 0.0
                watch.wake()
        return hangs

    def in_phase(self, phase: int) -> bool:
        return self.active and self._phase == phase

    def fault(self, what: str) -> None:
        """Count a fault and tell of it."""
        self.count += 1
        self._trace.say(f"fault: {what}")

    def judge(self, call: Call) -> Verdict:
        """Decide what happens to a request."""
        what = f"{call.verb} {call.route.kind if call.route else ''}/{call.route.name if call.route else ''}"
        if self.refuses is not None and self.refuses(call):
            self.fault(f"refused {what}")
            return Verdict(answer=error_answer(503, "ServiceUnavailable", "held back", 1))
        if self._given and (due := self._given.get((call.verb, call.route.kind if call.route else ""))):
            self.fault(f"{due[0]} {what}")
            return due.pop(0)
        if call.route and call.route.kind == "events":
            broken = self._errors and self._telling.random() < self._rate * 2
            return self._broken(call, what, self._telling) if broken else FINE
        if call.verb in WRITES:
            self.writes += 1
            moment = self.crash_at.pop(self.writes, "")
            if not moment and self._crashes and self.rng.random() < self._rate:
                moment = self.rng.choice(MOMENTS)
            if moment:
                self.fault(f"crash {moment} {what}")
                return Verdict(crash=moment)
        if not self._errors or self.rng.random() >= self._rate * 2:
            return self._trouble.judge(call) if self._trouble.kinds else FINE
        return self._broken(call, what, self.rng)

    def _broken(self, call: Call, what: str, rng: random.Random) -> Verdict:
        kind = rng.choice(("lost", "unanswered", "refused", "refused", "slow"))
        match kind:
            case "lost":
                verdict = Verdict(lost=True)
            case "unanswered":
                verdict = Verdict(unanswered=True)
            case "slow":
                verdict = Verdict(delay=rng.uniform(0.5, 8.0))
            case _:
                code, reason, retry = rng.choice(CODES)
                applied = code >= 500 and call.verb in WRITES and rng.random() < 0.5
                verdict = Verdict(answer=error_answer(code, reason, "injected", retry), applied=applied)
                kind = f"{code} {'applied' if applied else ''}"
        self.fault(f"{kind} {what}")
        return verdict

    def _later(self, what: object) -> None:
        self._world.loop.call_later(self.rng.uniform(1, 15), self._if_active, what, self._phase)

    def _if_active(self, what: object, phase: int) -> None:
        if self.in_phase(phase):
            what()  # type: ignore[operator]
            self._later(what)

    def _disturb_watches(self) -> None:
        world, rng = self._world, self.rng
        watches = world.watches.all()
        match rng.choice(("cut", "cut", "silent", "lag", "compact")):
            case "cut" if watches:
                watch = rng.choice(watches)
                watch.cut()
                self.fault(f"watch of {watch.kind} cut")
            case "silent" if watches:
                watch = rng.choice(watches)
                watch.silence(world.loop.time() + rng.uniform(1, 30))
                self.fault(f"watch of {watch.kind} silent")
            case "lag":
                kind = rng.choice(sorted(world.server.store.tables.keys() - UNWATCHED))
                world.network.lags[kind] = rng.choice([0.0, rng.uniform(0, 10)])
                self.fault(f"{kind} lag {world.network.lags[kind]:.1f} s")
            case _:
                kind = rng.choice(sorted(world.server.store.tables.keys() - UNWATCHED))
                world.server.store.compact(kind)
                world.server.expire_pages()
                for watch in watches:
                    if watch.kind == kind:
                        watch.cut()
                self.fault(f"{kind} compacted, watches cut")
