"""Mutants that nobody sees in an afternoon: what is never forgotten, and what is asked for although nothing happens.

As in :mod:`tests.sim.mutations`; where each is to be seen is ``weeks``, a life of some weeks, or ``rest``, an hour at rest.
What kills is a part of what is said then.
"""

LEAKS: dict[str, tuple[str, str, *tuple[tuple[str, str, str], ...]]] = {
    "deleted nodes are counted for ever": (
        "weeks",
        "Fleet._drivers grows",
        ("operate.rollout:Rollout._forget_all_but", "self.refresh(driver, name, None)", "pass"),
    ),
    "why a node waits is remembered when its driver is gone": (
        "weeks",
        "Worker._undone grows",
        ("operate.worker:Worker.reconcile", "self._keep(driver, name, None)", "pass"),
    ),
    "a task is left behind by each look at a node": (
        "weeks",
        "tasks grow",
        (
            "operate.worker:Worker._process",
            "await self.reconcile(name)",
            "asyncio.get_running_loop().create_task(asyncio.sleep(1e9)); await self.reconcile(name)",
        ),
    ),
    "a timer is left behind by each request": (
        "weeks",
        "TimerHandle grows",
        (
            "kube.client:Client._take_turn",
            "await self._limiter.wait()",
            "__import__('asyncio').get_running_loop().call_later(1e9, print); await self._limiter.wait()",
        ),
    ),
    "what was sent is remembered when its node is gone": (
        "weeks",
        "ClockSteps._sent grows",
        ("operate.clocksteps:ClockSteps._seen", "self._sent.pop(node.name, None)", "pass"),
    ),
    "failures are never forgotten": (
        "weeks",
        "ItemExponentialFailureRateLimiter._failures grows",
        ("kube.workqueue:WorkQueue.forget", "self._limiter.forget(item)", "pass"),
    ),
    "the pods of a node are watched when it is done": (
        "weeks",
        "tasks grow",
        ("operate.nodepods:NodePods.drop", "own[1].cancel()", "pass"),
    ),
    "what became of evictions is remembered when the node is done": (
        "weeks",
        "Evictees._by_uid grows",
        ("operate.evictor:Evictor.forget_node", "self.forget(uid)", "pass"),
        ("operate.nodepods:NodePods._handle", "self._gone(old.uid)", "pass"),
    ),
    "driver pods are watched for policies that are gone": (
        "weeks",
        "Caches._driver_pods grows",
        ("operate.caches:Caches.keep_driver_pods", "for key in self._following.keys() - kept:", "for key in ():"),
    ),
    "what policies that are gone were told is remembered": (
        "weeks",
        "StatusWriter._memories grows",
        ("operate.status:StatusWriter.run", "self._forget_all_but(present)", "pass"),
    ),
    "metrics of policies that are gone are kept": (
        "weeks",
        "series of what is gone",
        ("operate.controller:Controller._policy_changed", "self._metrics.retire(names)", "pass"),
    ),
    "metrics name nodes": (
        "weeks",
        "series of what is gone",
        (
            "operate.effects:Effects._measure",
            "self._metrics.transition(driver, policy, old,",
            "self._metrics.transition(driver, policy, f'{old} {view.node.name}',",
        ),
    ),
    "the state is taken anew each minute": (
        "rest",
        "'WATCHLIST nodes'",
        (
            "kube.reflector:Reflector._watch",
            "started = self._now()",
            "started = self._now(); self._stale = state is None",
        ),
        ("kube.follow:Follower._lifetime", "self._rng.randint(*WATCH_SECONDS)", "60"),
    ),
    "all is listed again each time that a watch ends": (
        "rest",
        "'LIST nodes'",
        (
            "kube.reflector:Reflector._watch",
            "started = self._now()",
            "started = self._now(); self._stale, self._watch_list = state is None, False",
        ),
    ),
    "watches end after five seconds": (
        "rest",
        "requests a second at rest",
        ("kube.follow:Follower._lifetime", "self._rng.randint(*WATCH_SECONDS)", "5"),
    ),
    "the status is written each minute": (
        "rest",
        "'PATCH driverupgradepolicies'",
        ("operate.status:StatusWriter._until_estimate_passes", "return None if first is None else", "return 60.0 or"),
        ("operate.status:_Memory.is_told", "return not self.unsure and", "return False and"),
    ),
    "a node's marks are written at each heartbeat": (
        "rest",
        "'PATCH nodes'",
        ("operate.caches:same", "if old is None", "return False\n    if old is None"),
        ("upgrade.idle:at_rest", "return turn.wait(None)\n    return", "return turn.write(turn.record)\n    return"),
    ),
    "the Lease is renewed twice a second": (
        "rest",
        "requests a second at rest",
        ("kube.leaderelection:LeaderElector._renew", "started + self._config.retry_period", "started + 0.5"),
    ),
}
