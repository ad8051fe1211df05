"""What a person can do about each reason. ``NODE`` and ``POLICY`` stand for names."""

from collections.abc import Mapping

from controller.upgrade.reasons import Reason

_R = Reason

REMEDIES: Mapping[Reason, str] = {
    _R.NO_SLOT: "Nothing: it goes when a slot is free. For more at a time raise maxParallelUpgrades.",
    _R.MAX_UNAVAILABLE: "Bring cordoned, not ready and failed nodes back, or raise maxUnavailable.",
    _R.HALTED: "See the failed nodes with `driver-upgrade status`; then retry one, change the driver's version, "
    "or raise failureThreshold.",
    _R.PAUSED: "Run `driver-upgrade resume POLICY`.",
    _R.SKIPPED: "Run `driver-upgrade skip NODE --undo`.",
    _R.NODE_NOT_READY: "See `kubectl describe node NODE`; it goes on once the node is Ready.",
    _R.NODE_CORDONED: "Run `kubectl uncordon NODE`, or set the policy's cordonedNodes to Upgrade.",
    _R.DRIVER_POD_MISSING: "See the DaemonSet's events and the node's taints and resources: its pod must come first.",
    _R.OTHER_DRIVER_IN_PROGRESS: "Nothing: drivers of one node go one after the other.",
    _R.OTHER_OPERATOR: "Let the other operator finish, or remove its requestor-mode annotation if it is gone.",
    _R.POLICY_CONFLICT: "Narrow nodeSelector of one of the policies, so that each node has one.",
    _R.POLICY_INVALID: "Correct the field that is named; nothing new is started meanwhile.",
    _R.NAMESPACE_NOT_ALLOWED: "Create the policy in a driver namespace, or add its own to --driver-namespaces.",
    _R.INVALID_STATE: "Correct the state label, or remove it: the controller then judges the node anew.",
    _R.REVISION_UNKNOWN: "Usually gone in seconds. If not, see whether kube-controller-manager works and what the "
    "DaemonSet's events say.",
    _R.PODS_NOT_LISTED: "Usually gone in seconds. If a pod is named, correct or delete it; else the controller's log says "
    "why pods, or their resource claims, cannot be read.",
    _R.JOBS_RUNNING: "Wait for the jobs, end them, or set waitForCompletion.timeoutSeconds.",
    _R.EVICTING: "Nothing: the pods have been asked to leave.",
    _R.POD_DISRUPTION_BUDGET: "Bring more pods of that workload up elsewhere, or lower what the budget demands.",
    _R.MULTIPLE_POD_DISRUPTION_BUDGETS: "Leave the pod only one budget: the API server evicts no pod that has several.",
    _R.POD_TERMINATING: "Wait for its grace period. If a finalizer holds it, see why its owner does not remove it.",
    _R.NAMESPACE_TERMINATING: "Wait for the namespace to go; see what holds it with `kubectl get namespace -o yaml`.",
    _R.UNMANAGED_POD: "Delete the pod (nothing brings it back), label it to be left alone, or set drain.force.",
    _R.EMPTY_DIR_POD: "Save what is in its emptyDir and delete the pod, or set drain.deleteEmptyDir.",
    _R.EVICTION_DENIED: "A webhook or policy refuses: its message says what it wants.",
    _R.FORBIDDEN: "Grant the controller's role the verb that is named, or look at the admission policy.",
    _R.API_THROTTLED: "The API server is busy; see its priority levels if this lasts.",
    _R.API_UNAVAILABLE: "See whether the API server, and the webhooks that it calls, are up.",
    _R.DRIVER_POD_PENDING: "See the pod's events: `kubectl describe pod`.",
    _R.IMAGE_PULL_FAILED: "Check image name, tag and pull secret of the DaemonSet; or put the version back.",
    _R.DRIVER_POD_CRASHING: "See `kubectl logs --previous` of the pod; mend or put back the version, and the node goes on.",
    _R.DRIVER_POD_NOT_READY: "See the pod's logs and probes.",
    _R.DRIVER_POD_TERMINATING: "Wait. If it hangs: is the driver still in use, or the kubelet down?",
    _R.VALIDATION_POD_MISSING: "Check validation.podSelector, and that the validator's DaemonSet runs on this node.",
    _R.VALIDATION_NOT_READY: "See the validation pod's logs: it is what says whether the driver works.",
    _R.CORDON_LIFTED: "Find out who uncordons the node, and stop it until the upgrade is done.",
    _R.DEADLINE_EXCEEDED: "Remove what held it up, then `driver-upgrade retry NODE`; or raise the time-out.",
    _R.DAEMONSET_GONE: "Nothing, if the driver was taken off on purpose. Else check the DaemonSet's nodeSelector, "
    "affinity and tolerations.",
    _R.FAILED: "See the driver's logs on this node, mend what is wrong, then `driver-upgrade retry NODE`.",
}


def remedy(reason: Reason | None, node: str, policy: str = "POLICY") -> str:
    """Return what to do about a reason on a node; empty without a reason."""
    return REMEDIES[reason].replace("NODE", node).replace("POLICY", policy) if reason else ""
