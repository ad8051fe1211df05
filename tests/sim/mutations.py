"""The list of mutants: where each is to be seen, what must kill it, then (function, source, what stands there instead).

What kills is the rule that is about the defect, of all that the run may violate besides; several are apart by a space. The
controller looks after itself, so where two of its checks stand behind one another the rule of what follows is named: with
no cordon nothing is evicted (S3), and the node fails for no reason (L3). S10 and L6 take several replicas, and L4 a bound
of its own: their mutants are those of ``test_leader_mutants.py`` and ``test_isolation.py``.

P1-P8 are the defects that reading k8s-operator-libs suggests (reliability.md, section 2.1), rebuilt here.
"""

from tests.sim.leaks import LEAKS

Edit = tuple[str, str, str]

_CORDON = "upgrade.cordon:"
_VACATE = "upgrade.vacate:"
_RESTART = "upgrade.restart:"
_DRAIN = "upgrade.drain:"

MUTANTS: dict[str, tuple[str, str, *tuple[Edit, ...]]] = {
    "P1 a foreign cordon is taken for ours": (
        "foreign cordon",
        "S5",
        (_CORDON + "take", "if view.foreign_cordon:", "if False:"),
    ),
    "P1 cordoned nodes are granted beyond the limit": (
        "any calm",
        "S1",
        ("upgrade.admission:_upgrades", "if len(chosen) == slots:", "if len(chosen) == slots and available:"),
        ("upgrade.admission:_upgrades", "slots + len(taken)", "slots + 100"),
    ),
    "P2 the mark of a foreign cordon is left behind": (
        "foreign cordon",
        "S16",
        (_CORDON + "_without", "return {key: None} if view.annotated(key) else {}", "return {}"),
    ),
    "P3 clocks survive into the next upgrade": (
        "jobs, two versions",
        "S12",
        (
            "upgrade.turn:Turn.fresh",
            "attempt=self.record.attempt,",
            "attempt=self.record.attempt, entered=self.record.entered,",
        ),
        ("upgrade.idle:grant", "entered={},", ""),
    ),
    "P4 a PATCH without resourceVersion": (
        "restart",
        "S15",
        ("upgrade.actions:merge_body", '"resourceVersion": resource_version,', ""),
    ),
    "P4 deletions and evictions without uid": (
        "drain",
        "S3 S4",
        ("kube.client:_delete_options", '"preconditions": {"uid": uid}', '"preconditions": {}'),
    ),
    "P5 deadlines by the local clock": (
        "jobs @8",
        "L3",
        ("kube.clock:ServerClock.observe", "self._learn(stamp - received, stamp + 1 - sent, received)", "return"),
    ),
    "P6 validation without pods never ends": (
        "validation missing",
        "L1",
        (_RESTART + "_unvalidated", "if turn.expired:", "if turn.expired and waiting:"),
    ),
    "P7 revisions of another DaemonSet": (
        "a DaemonSet beside",
        "S4",
        ("upgrade.revision:revisions_of", "owner.uid == uid", "True"),
        ("operate.caches:Caches.revisions", "informer.store.by_index(BY_OWNER, daemonset.uid)", "informer.store.list()"),
    ),
    "P8 one missing node stops the count": (
        "node deleted",
        "L2",
        ("operate.rollout:Rollout._drivers", "return", "assert node is not None\n    return"),
    ),
    "one slot too many": (
        "drain",
        "S1",
        ("upgrade.budget:free_slots", "max_parallel - in_progress", "max_parallel + 1 - in_progress"),
    ),
    "grants on their way are not counted": (
        "drain two at a time",
        "S1",
        ("operate.rollout:Rollout._reserve", "if facts is not None:", "if False:"),
    ),
    "failed nodes wait for nobody: no halt": (
        "broken version",
        "S8",
        ("upgrade.admission:halted_targets", "if count >= policy.failure_threshold", "if False"),
    ),
    "maxUnavailable is not looked at": (
        "max unavailable",
        "S2",
        ("upgrade.budget:free_room", "max(0, scale(max_unavailable, total) - unavailable)", "UNLIMITED"),
    ),
    "maxUnavailable is rounded down": ("one percent", "L2", ("upgrade.budget:scale", "math.ceil(", "math.floor(")),
    "nodes that are not ready count as available": (
        "any calm",
        "S2",
        ("upgrade.facts:_facts", "available=view.node.ready and", "available="),
    ),
    "pause is not looked at": ("paused", "S8", ("upgrade.admission:grants_new", "and not policy.paused", "")),
    "skip is not looked at": ("skipped node", "S8", ("upgrade.idle:why_not_eligible", "if view.skipped:", "if False:")),
    "a foreign cordon with Skip is granted": (
        "foreign cordon skipped",
        "S8",
        ("upgrade.idle:why_not_eligible", 'view.policy.spec.cordoned_nodes == "Skip"', "False"),
    ),
    "the node is not cordoned": ("drain", "L3", (_CORDON + "take_again", "unschedulable=True", "unschedulable=None")),
    "the claim is not written": ("drain", "L5", (_CORDON + "take_again", "claim=True", "claim=False")),
    "a lifted cordon is not taken again": (
        "uncordoned meanwhile",
        "L3",
        ("upgrade.decide:_step", "not turn.view.node.unschedulable", "False"),
    ),
    "any cordon is lifted at the end": ("foreign cordon", "S5", (_CORDON + "lifts", "view.claimed", "True")),
    "a cordon to be kept is lifted": (
        "cordon to be kept",
        "S5",
        (_CORDON + "lifts", "not view.annotated(view.keys.initial_unschedulable)", "True"),
    ),
    "the cordon is never lifted": ("restart", "L5", (_CORDON + "release", "False if lifts(view) else None", "None")),
    "the claim of a lifted cordon stands": (
        "cordon lifted and set again",
        "S5",
        ("upgrade.decide:_without_cordon", "not turn.record.claim", "True"),
    ),
    "put back without lifting the cordon": (
        "disabled meanwhile",
        "L5",
        ("upgrade.putback:put_back", "release(turn.view)", "None"),
    ),
    "never put back": ("disabled meanwhile", "L5", ("upgrade.decide:_without_policy", "view.written is None or", "True or")),
    "marks of another node are believed": (
        "node deleted and back with its marks",
        "S14",
        ("upgrade.snapshot:NodeView.written", 'record.node in {"", self.node.uid}', "True"),
        ("upgrade.snapshot:NodeView.foreign_label", 'record.node not in {"", self.node.uid}', "False"),
    ),
    "pods with the skip label are evicted": (
        "skipped pod",
        "S3",
        (_DRAIN + "stays", "pod.labels.get(rules.drain_skip) == TRUE", "False"),
    ),
    "DaemonSets' pods are evicted": (
        "validation",
        "S3",
        ("upgrade.pods:is_daemonset_pod", "return owner is not None", "return False"),
    ),
    "ended pods are evicted": ("any calm", "S3", (_DRAIN + "stays", "pod.terminal", "False")),
    "pods outside the selector are evicted": (
        "pods that are not chosen",
        "S3",
        (_DRAIN + "chooses", "selector.matches(pod.labels)", "True"),
    ),
    "pods with an emptyDir are evicted": ("scratch space", "S3", ("upgrade.pods:has_empty_dir", "any(", "False and any(")),
    "evicted counts as gone": (
        "slow to end",
        "S4",
        (_DRAIN + "drainage", "if f is not Fate.STAYS)", "if f not in {Fate.STAYS, Fate.TERMINATES})"),
    ),
    "the drain is left out": (
        "drain",
        "S4",
        (_VACATE + "next_step", "if turn.policy", "if step is not State.DRAIN_REQUIRED and turn.policy"),
        (_RESTART + "_occupied", "if not turn.policy.spec.drain.enable", "if True"),
    ),
    "pods not listed yet are taken for none": (
        "any errors",
        "S4",
        ("operate.nodepods:NodePods.look", "if own[0].synced else None", "if True else None"),
    ),
    "every restart is a restart only": (
        "drain",
        "S4",
        (_VACATE + "restart_only", "if not variable or", "return True\n    if not variable or"),
    ),
    "a drain out of time goes on to the restart": (
        "budget that allows nothing",
        "S4",
        (_VACATE + "drain", "last_resort=State.UPGRADE_FAILED", "last_resort=State.POD_RESTART_REQUIRED"),
        (_RESTART + "_occupied", "if not turn.policy.spec.drain.enable", "if True"),
    ),
    "a drain has no deadline": (
        "budget that allows nothing",
        "L1",
        ("upgrade.turn:timeout_of", "State.DRAIN_REQUIRED: spec.drain.timeout_seconds,", ""),
    ),
    "jobs are not waited for": ("jobs", "S12", (_VACATE + "wait_for_jobs", "held is None and not jobs", "held is None")),
    "jobs get a tenth of their time": (
        "any calm",
        "S12",
        (
            "upgrade.turn:timeout_of",
            "spec.wait_for_completion.timeout_seconds,",
            "spec.wait_for_completion.timeout_seconds // 10,",
        ),
    ),
    "any driver pod is deleted again and again": (
        "restart",
        "S4",
        ("upgrade.snapshot:NodeView.to_replace", "if s is Standing.OUTDATED or", "if True or"),
    ),
    "a driver that is not ready will do": (
        "restart",
        "S13",
        ("upgrade.pods:is_ready", "and all(s.ready for s in statuses)", ""),
    ),
    "no driver at all will do": (
        "any meddle",
        "S13",
        ("upgrade.snapshot:NodeView.driver_ready", "bool(self.driver_pods) and", ""),
    ),
    "validation is left out": (
        "validation",
        "S13",
        (_RESTART + "_ready", "if turn.policy.validators is not None:", "if False:"),
    ),
    "validation without pods passes": (
        "validation missing",
        "S13",
        ("upgrade.failed:validation_passes", "bool(found) and all", "all"),
    ),
    "a validation is not looked at again": (
        "a driver restarts after its validation, and nobody looks",
        "S13",
        (_RESTART + "uncordon", "_unproven(turn) or turn.finish()", "turn.finish()"),
    ),
    "pods that are not listed yet have to validate nothing": (
        "a driver restarts after its validation, and nobody looks",
        "S13",
        (
            _RESTART + "_unproven",
            "if validation_passes(turn.view):",
            "if validation_passes(turn.view) or turn.view.workload is None:",
        ),
    ),
    "loading is unblocked under workloads": (
        "safe load",
        "S6",
        (_VACATE + "next_step", "if not turn.view.wanted or", "if turn.view.waits_for_safe_load or not turn.view.wanted or"),
        (_RESTART + "_occupied", "if not turn.policy.spec.drain.enable", "if turn.view.waits_for_safe_load"),
    ),
    "writes that change nothing": (
        "restart",
        "S15",
        ("upgrade.idle:at_rest", "return turn.wait(None)\n    return", "return turn.write(turn.record)\n    return"),
    ),
    "back to done and to required again": (
        "restart",
        "S15",
        ("upgrade.idle:required", "not view.needs_upgrade and view.driver_pods", "view.driver_pods"),
    ),
    "a foreign label is written": (
        "restart",
        "S11",
        ("upgrade.actions:merge_body", '"labels": {state_key: label}', '"labels": {state_key: label, "example.com/x": "y"}'),
    ),
    "workloads are deleted": (
        "drain",
        "S9",
        (
            "operate.evictor:_send",
            "client.evict(action.name, action.namespace, action.uid, grace_period_seconds=grace)",
            "client.delete(PODS, action.name, action.namespace, uid=action.uid)",
        ),
    ),
    "refused evictions are repeated at once": (
        "budget that allows nothing",
        "S15",
        ("operate.answers:_too_many", "BUDGET_RETRY", "0.2"),
        ("operate.evictor:Evictor._spent_budget", "is_ready(evictee.pod)", "False"),
    ),
    "failed nodes are tried again for ever": (
        "broken version",
        "L3",
        ("upgrade.failed:deserves_another_try", "return waits_anew or", "return True or"),
    ),
    "a failed restart never ends": (
        "broken version",
        "L1",
        ("upgrade.turn:timeout_of", "State.POD_RESTART_REQUIRED: spec.pod_restart.timeout_seconds,", ""),
    ),
    "a state is left out": (
        "drain",
        "S7",
        (_VACATE + "cordon", "next_step(turn, State.CORDON_REQUIRED)", "State.UNCORDON_REQUIRED"),
    ),
    "what became of evictions is forgotten": (
        "slow to end",
        "S15",
        ("operate.evictor:Evictor._is_wanted", "return self._still_wanted(evictee.node, evictee.uid)", "return True"),
        ("operate.evictor:Evictor.submit", "if evictee.under_way:", "if False:"),
        ("operate.evictees:Evictees.expects", "and not evictee.evicted", ""),
        (_DRAIN + "fate", "if pod.terminating:", "if False:"),
        (_DRAIN + "drainage", "attempts[pod.uid].again <= now", "True"),
    ),
    "a node that restarts is given back": (
        "a node restarts during its validation",
        "S7",
        ("upgrade.placement:_tolerated", "taint.key.startswith(_CONDITIONS)", 'taint.key.endswith("/unschedulable")'),
    ),
    "a silent watch is waited for": (
        "a node's pods leave while its watch is silent",
        "L3",
        ("kube.follow:Follower._counted", "silence=SILENCE", "silence=None"),
    ),
    "one 404 is taken for a missing definition": (
        "a mistaken 404 as the controller starts anew",
        "S7",
        ("kube.reflector:Reflector._not_found", "if confirmed := ", "if confirmed := True or "),
    ),
    "a DaemonSet that is away for a moment is gone": (
        "a DaemonSet is away for a minute",
        "S7",
        ("upgrade.putback:daemonset_gone", "GONE_SECONDS", "5.0"),
    ),
    "a node without its driver is given back": (
        "disabled in the middle of a restart",
        "S7",
        ("upgrade.putback:is_finished_first", "not in FINISHING or", "not in FINISHING or True or"),
    ),
    "failed nodes are given back": (
        "disabled with a failed node",
        "S7",
        ("upgrade.putback:put_back", "and turn.view.node.unschedulable", "and False"),
    ),
    "a drain has half its time": (
        "budget that allows nothing",
        "S7",
        ("upgrade.turn:timeout_of", "spec.drain.timeout_seconds", "spec.drain.timeout_seconds // 2"),
    ),
    "a cordon that is lifted once fails the node": (
        "uncordoned meanwhile",
        "S7",
        (_VACATE + "recordon", "turn.record.recordons >= MAX_RECORDONS", "True"),
    ),
    "the pod deletion takes what the drain is to take": (
        "pod deletion, then drain",
        "S3",
        (_VACATE + "deletion_rules", "by_label or _uses_device(turn, pod)", "True or by_label or _uses_device(turn, pod)"),
    ),
    "nodes that are not ready are granted": (
        "a node that is not ready for a while",
        "S8",
        ("upgrade.idle:why_not_eligible", "if not view.node.ready and", "if False and"),
    ),
    "another operator's nodes are taken": (
        "another operator's node",
        "S8",
        (
            "upgrade.decide:other_operators",
            "return view.annotated(view.keys.requestor_mode) and not engaged",
            "return False",
        ),
    ),
    "the peer's clocks are written": (
        "restart",
        "S11",
        (
            "upgrade.turn:Turn._peer_clocks",
            "{key: None for key in keys if self.view.annotated(key)}",
            '{key: "0" for key in keys}',
        ),
    ),
    "refused evictions are repeated a second too soon": (
        "budget that allows nothing",
        "S15",
        ("operate.answers:_too_many", "BUDGET_RETRY", "4.0"),
        ("operate.evictor:Evictor._spent_budget", "is_ready(evictee.pod)", "False"),
    ),
    "a step that is off waits": (
        "a step that is off, set by hand",
        "L1",
        (_VACATE + "wait_for_jobs", "if not turn.policy.has_work(State.WAIT_FOR_JOBS_REQUIRED):", "if False:"),
    ),
}
MUTANTS |= LEAKS
