"""More that goes wrong, each kind seeded, by itself or with any other: see :data:`KINDS`.

What a kind changes outside single requests it changes now and then while a phase lasts, and puts right at its end, except
what only time puts right: a watch that hangs is given up by its client when it has been silent for three minutes.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from controller.kube.follow import SILENCE
from tests.sim.apiserver import Call
from tests.sim.fuzz import Fuzzer
from tests.sim.hostile import Hostile
from tests.sim.network import FINE, Verdict, error_answer
from tests.sim.routes import UNWATCHED
from tests.sim.world import DAEMONSET, KINDS, POLICY

if TYPE_CHECKING:
    from tests.sim.faults import Faults
    from tests.sim.world import World

WRITES = frozenset({"PATCH", "EVICT", "DELETE", "POST", "PUT"})
ANSWERS = (
    (400, "BadRequest", 0),
    (401, "Unauthorized", 0),
    (403, "Forbidden", 0),
    (404, "NotFound", 0),
    (409, "Conflict", 0),
    (410, "Expired", 0),
    (415, "UnsupportedMediaType", 0),
    (422, "Invalid", 0),
    (429, "TooManyRequests", 0),
    (429, "TooManyRequests", 3),
    (500, "InternalError", 0),
    (502, "", 0),
    (503, "", 0),
    (503, "ServiceUnavailable", 2),
    (504, "Timeout", 0),
    (507, "InsufficientStorage", 0),
)
"""Status, reason and Retry-After of every kind of refusal."""
APPLIED = frozenset({500, 502, 503, 504})
"""What may be answered by something on the way although the server has carried the request out."""
GARBLED = ("truncated", "html", "empty")
HANG = (30.0, 600.0)
"""How long a watch hangs, if its client lets it."""
GIVING_UP = 5.0
"""Seconds until the next watch has told what the one that hung did not."""
STEP = 3600.0


class Trouble:
    """The kinds of one world."""

    def __init__(self, world: "World", faults: "Faults", kinds: frozenset[str]) -> None:
        self._world = world
        self._faults = faults
        self.kinds = kinds & frozenset(KINDS)
        self._rng = random.Random(f"{world.plan.seed} trouble")
        self._rate = self._rng.choice([0.01, 0.04, 0.1])
        self._busy_until = 0.0
        self._phase = 0
        self._hostile = Hostile(world.server, self._rng)
        self._fuzzer = Fuzzer(world, self._rng)

    def begin(self, phase: int) -> None:
        """A phase begins."""
        self._phase = phase
        acts: dict[str, tuple[Callable[[], str], ...]] = {
            "gaps": (self._coalesce, self._no_bookmarks, self._hang, self._replace),
            "travel": (self._freeze,),
            "slow": (self._crawl, self._throttle),
            "clock": (self._step_clock, self._drift, self._step_wall),
            "fuzz": (self._fuzzer.change,),
            "hostile": (self._hostile.appear, self._hostile.disguise),
        }
        for kind in sorted(self.kinds & acts.keys()):
            self._later(acts[kind])

    def end(self) -> float:
        """Put everything right; returns until when something may still hang."""
        world = self._world
        self._busy_until = world.network.slow = 0.0
        world.server.frozen.clear()
        if "clock" in self.kinds:
            world.clock.right()
        self._hostile.vanish()
        self._fuzzer.restore()
        given_up = world.loop.time() + SILENCE + GIVING_UP
        return max((min(w.silent_until, given_up) for w in world.watches.all() if w.hangs), default=0.0)

    def judge(self, call: Call) -> Verdict:
        """What happens to one request."""
        if self._world.loop.time() < self._busy_until and self._rng.random() < 0.5:
            return Verdict(answer=error_answer(429, "TooManyRequests", "too many requests", 1))
        if "answers" in self.kinds and self._rng.random() < self._rate:
            return self._refusal(call)
        if "bodies" in self.kinds and self._rng.random() < self._rate:
            garble = self._rng.choice(GARBLED)
            self._faults.fault(f"{garble} answer to {call.verb} {call.route}")
            return Verdict(garble=garble)
        return FINE

    def _refusal(self, call: Call) -> Verdict:
        code, reason, retry = self._rng.choice(ANSWERS)
        applied = call.verb in WRITES and code in APPLIED and self._rng.random() < 0.5
        self._faults.fault(f"{code}{' applied' if applied else ''} to {call.verb} {call.route}")
        return Verdict(answer=error_answer(code, reason, "injected", retry), applied=applied)

    def _later(self, acts: tuple[Callable[[], str], ...]) -> None:
        self._world.loop.call_later(self._rng.uniform(1, 20), self._act, acts, self._phase)

    def _act(self, acts: tuple[Callable[[], str], ...], phase: int) -> None:
        if self._faults.in_phase(phase):
            self._faults.fault(self._rng.choice(acts)())
            self._later(acts)

    # Gaps in what is seen.

    def _watch(self) -> str:
        return self._rng.choice(sorted(self._world.server.store.tables.keys() - UNWATCHED))

    def _coalesce(self) -> str:
        kind = self._watch()
        for watch in self._world.watches.of(kind):
            watch.coalesces = True
        self._world.network.lags[kind] = self._rng.uniform(1, 10)
        return f"events of {kind} coalesced"

    def _no_bookmarks(self) -> str:
        kind = self._watch()
        for watch in self._world.watches.of(kind):
            watch.drop_bookmarks()
        return f"bookmarks of {kind} dropped"

    def _hang(self) -> str:
        watches = self._world.watches.all()
        if not watches:
            return "nothing to hang"
        watch = self._rng.choice(watches)
        watch.silence(self._world.loop.time() + self._rng.uniform(*HANG), hangs=True)
        return f"watch of {watch.kind} hangs until {watch.silent_until:.0f}"

    def _replace(self) -> str:
        """Something is deleted and made anew under its name while nobody watches, and history is forgotten."""
        world = self._world
        kind, key = self._rng.choice(
            [("nodes", ""), ("nodes", ""), ("daemonsets", DAEMONSET), ("driverupgradepolicies", POLICY)]
        )
        if kind == "nodes":
            key = self._rng.choice(sorted(world.server.store.tables["nodes"]))
        for watch in world.watches.of(kind):
            watch.cut()
        old = world.server.get(kind, key)
        if old is not None and not key.startswith("evil"):
            world.server.delete("admin", kind, key)
            if kind == "nodes":
                world.add_node(key)
            elif kind == "daemonsets":
                world.create_driver()
            else:
                world.create_policy(world.plan.policy)
        world.server.store.compact(kind)
        return f"{kind} {key} replaced in a gap"

    def _freeze(self) -> str:
        """The server's cache stands still for a while, and so do watches; who restarts may be shown the past."""
        world, kind = self._world, self._watch()
        if kind in world.server.frozen or self._rng.random() < 0.3:
            world.server.frozen.pop(kind, None)
            return f"cache of {kind} moves"
        world.server.frozen[kind] = world.server.store.rv
        until = world.loop.time() + self._rng.uniform(5, 40)
        for watch in world.watches.of(kind):
            watch.silence(until)
        if self._rng.random() < 0.3:
            world.restart()
        return f"cache of {kind} frozen at {world.server.store.rv}"

    # Slowness.

    def _crawl(self) -> str:
        network = self._world.network
        network.slow = self._rng.uniform(1, 5)
        self._world.loop.call_later(self._rng.uniform(5, 40), setattr, network, "slow", 0.0)
        return f"requests take up to {network.slow:.1f} s longer"

    def _throttle(self) -> str:
        self._busy_until = self._world.loop.time() + self._rng.uniform(5, 30)
        return "every second request is throttled"

    # Clocks.

    def _step_clock(self) -> str:
        seconds = self._rng.choice([-STEP, STEP, -60.0, 60.0])
        self._world.clock.step(seconds)
        return f"the server's clock steps by {seconds:.0f} s"

    def _drift(self) -> str:
        rate = self._rng.choice([1.2, 1 / 1.2])
        self._world.clock.drift(rate)
        self._world.loop.call_later(self._rng.uniform(5, 60), self._world.clock.drift, 1.0)
        return f"the server's clock runs at {rate:.2f}"

    def _step_wall(self) -> str:
        self._world.wall_skew = self._rng.choice([-STEP, 0.0, STEP])
        return f"our own wall clock is {self._world.wall_skew:.0f} s wrong"
