"""Mutants that nobody sees in an afternoon: what is never forgotten, and what is asked for although nothing happens.

As in :mod:`tests.sim.mutations`; where each is to be seen is ``weeks``, a life of some weeks, or ``rest``, an hour at rest.
"""

LEAKS: dict[str, tuple[str, *tuple[tuple[str, str, str], ...]]] = {
    "deleted nodes are counted for ever": (
        "weeks",
        ("operate.rollout:Rollout._count", "self.refresh(driver, name, None)", "pass"),
    ),
    "why a node waits is remembered when its driver is gone": (
        "weeks",
        ("operate.worker:Worker.reconcile", "self._keep(driver, name, None)", "pass"),
    ),
    "a task is left behind by each look at a node": (
        "weeks",
        (
            "operate.worker:Worker._process",
            "await self.reconcile(name)",
            "asyncio.get_running_loop().create_task(asyncio.sleep(1e9)); await self.reconcile(name)",
        ),
    ),
    "a timer is left behind by each request": (
        "weeks",
        (
            "kube.client:Client._take_turn",
            "await self._limiter.wait()",
            "__import__('asyncio').get_running_loop().call_later(1e9, print); await self._limiter.wait()",
        ),
    ),
    "failures are never forgotten": (
        "weeks",
        ("kube.workqueue:WorkQueue.forget", "self._limiter.forget(item)", "pass"),
    ),
    "the pods of a node are watched when it is done": (
        "weeks",
        ("operate.nodepods:NodePods.drop", "own[1].cancel()", "pass"),
    ),
    "what became of evictions is remembered when the node is done": (
        "weeks",
        ("operate.evictor:Evictor.forget_node", "self.forget(uid)", "pass"),
        ("operate.nodepods:NodePods._handle", "self._gone(old.uid)", "pass"),
    ),
    "driver pods are watched for policies that are gone": (
        "weeks",
        ("operate.caches:Caches.keep_driver_pods", "for key in self._following.keys() - kept:", "for key in ():"),
    ),
    "what policies that are gone were told is remembered": (
        "weeks",
        ("operate.status:StatusWriter.run", "self._forget_all_but(present)", "pass"),
    ),
    "metrics of policies that are gone are kept": (
        "weeks",
        ("operate.controller:Controller._policy_changed", "self._metrics.retire(names)", "pass"),
    ),
    "metrics name nodes": (
        "weeks",
        (
            "operate.effects:Effects._measure",
            "self._metrics.transition(driver, policy, old,",
            "self._metrics.transition(driver, policy, f'{old} {view.node.name}',",
        ),
    ),
    "the state is taken anew each minute": (
        "rest",
        (
            "kube.reflector:Reflector._watch",
            "seconds = self._rng.randint(*WATCH_SECONDS)",
            "seconds, self._stale = 60, state is None",
        ),
    ),
    "all is listed again each time that a watch ends": (
        "rest",
        (
            "kube.reflector:Reflector._watch",
            "seconds = self._rng.randint(*WATCH_SECONDS)",
            "seconds = self._rng.randint(*WATCH_SECONDS); self._stale, self._watch_list = state is None, False",
        ),
    ),
    "watches end after five seconds": (
        "rest",
        ("kube.reflector:Reflector._watch", "seconds = self._rng.randint(*WATCH_SECONDS)", "seconds = 5"),
    ),
    "the status is written each minute": (
        "rest",
        ("operate.status:StatusWriter._until_estimate_passes", "return None if first is None else", "return 60.0 or"),
        ("operate.status:StatusWriter._write", "if status == self._told.get(policy.uid, obj.status):", "if False:"),
    ),
    "a node's marks are written at each heartbeat": (
        "rest",
        ("operate.caches:same", "if old is None", "return False\n    if old is None"),
        ("upgrade.idle:at_rest", "return turn.wait(None)\n    return", "return turn.write(turn.record)\n    return"),
    ),
    "the Lease is renewed twice a second": (
        "rest",
        ("kube.leaderelection:LeaderElector._renew", "started + self._config.retry_period", "started + 0.5"),
    ),
}
