"""Prometheus metrics: what is counted of the domain, and the one object that everything else is registered with.

No label holds a node's name or foreign text: ten thousand series would block the loop at every scrape. Labels are drivers,
policies and the closed vocabularies of states, reasons and outcomes; the series of a policy go when it goes. Every metric
is a row of docs/metrics.md, and a test holds the two against each other.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from controller import __version__
from controller.operate.fleetmetrics import Decisions, FleetCollector
from controller.operate.machinemetrics import QUEUE, MachineMetrics
from controller.upgrade.fleet import Fleet
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.states import IN_PROGRESS, State

__all__ = ["QUEUE", "Metrics"]

EVICTION_OUTCOMES = (
    "evicted",
    "gone",
    "budget",
    "multiple_budgets",
    "conflict",
    "throttled",
    "forbidden",
    "namespace_terminating",
    "denied",
    "unavailable",
)
RECONCILE_ERRORS = ("conflict", "not_found", "forbidden", "request", "crash")
EVENT_OUTCOMES = ("written", "counted", "rate_limited", "queue_full", "refused", "stopped")
UPGRADE_OUTCOMES = ("done", "failed")
STATUS_OUTCOMES = ("written", "refused")
_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 86400)

# When a series began is of no use to anybody here, and would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics(MachineMetrics):
    """Everything that is measured. Implements the metrics protocols of ``controller.kube`` and of this package."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry or CollectorRegistry())
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        info = Gauge("driver_upgrade_build_info", "Always 1; the version.", ["version"], registry=self.registry)
        info.labels(__version__).set(1)
        self._rollouts()
        self._evictions = self._outcomes("evictions", "Evictions by what was answered.", EVICTION_OUTCOMES)
        self._events = self._outcomes("events", "Events for people, by what became of them.", EVENT_OUTCOMES)
        self._status_writes = self._outcomes("status_writes", "Writes of a policy's status.", STATUS_OUTCOMES)
        self._errors = self._outcomes("reconcile_errors", "Looks at a node that ended in an error.", RECONCILE_ERRORS)

    def _rollouts(self) -> None:
        of, registry = ["driver", "policy"], self.registry
        self._transitions = Counter(
            "driver_upgrade_transitions",
            "Nodes that went from one state to another.",
            [*of, "from", "to"],
            registry=registry,
        )
        self._seconds = Histogram(
            "driver_upgrade_state_seconds",
            "How long nodes stayed in a state, observed when they leave it.",
            [*of, "state"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._upgrades = Histogram(
            "driver_upgrade_node_upgrade_seconds",
            "How long a node took from its grant until it was done or failed.",
            [*of, "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "driver_upgrade_failures",
            "Nodes that went to upgrade-failed, by where and why.",
            [*of, "state", "reason"],
            registry=registry,
        )
        self._restarts = Counter(
            "driver_upgrade_driver_restarts",
            "Driver pods deleted to be replaced.",
            of,
            registry=registry,
        )

    def _outcomes(self, name: str, text: str, outcomes: Iterable[str]) -> Counter:
        """Make a counter by outcome. Every outcome has a series from the start: a rate sees its first one, too."""
        counter = Counter(f"driver_upgrade_{name}", text, ["outcome"], registry=self.registry)
        for outcome in outcomes:
            counter.labels(outcome)
        return counter

    def leads(self, leading: Callable[[], bool]) -> None:
        """Expose whether this replica acts."""
        gauge = Gauge("driver_upgrade_leader", "1 where this replica acts, 0 on a standby.", registry=self.registry)
        gauge.set_function(leading)

    def follow(
        self,
        fleet: Fleet,
        policies: Callable[[], Iterable[Policy]],
        decisions: Decisions,
        now: Callable[[], float],
    ) -> None:
        """Expose the fleet as it is now; see :class:`FleetCollector`."""
        self.registry.register(FleetCollector(fleet, policies, decisions, now))

    def retire(self, drivers: Mapping[str, Iterable[str]]) -> None:
        """Forget what was counted for other policies than these (full names, by driver).

        For these the ends of upgrades have a series from the start: a rate sees the first node of a rollout, too.
        """
        kept = {(driver, name) for driver, names in drivers.items() for name in names}
        counted = (self._transitions, self._seconds, self._upgrades, self._failures, self._restarts)
        for metric in counted:
            samples = (sample.labels for family in metric.collect() for sample in family.samples)
            for driver, name in {(labels["driver"], labels["policy"]) for labels in samples} - kept:
                metric.remove_by_labels({"driver": driver, "policy": name})
        for driver, name in kept:
            for outcome in UPGRADE_OUTCOMES:
                self._upgrades.labels(driver, name, outcome)

    def transition(self, driver: str, policy: str, old: State, new: State, seconds: float) -> None:
        """A node went from one state to another after this long."""
        self._transitions.labels(driver, policy, _named(old), _named(new)).inc()
        self._seconds.labels(driver, policy, _named(old)).observe(seconds)

    def upgraded(self, driver: str, policy: str, old: State, new: State, seconds: float) -> None:
        """A node that was in progress came to its end this long after the grant."""
        if old in IN_PROGRESS and new in {State.UPGRADE_DONE, State.UPGRADE_FAILED}:
            outcome = UPGRADE_OUTCOMES[new is State.UPGRADE_FAILED]
            self._upgrades.labels(driver, policy, outcome).observe(seconds)

    def failed(self, driver: str, policy: str, state: State, reason: Reason | None) -> None:
        """A node failed in a state, for a reason."""
        self._failures.labels(driver, policy, _named(state), str(reason or Reason.FAILED)).inc()

    def driver_restarted(self, driver: str, policy: str) -> None:
        """A driver pod was deleted to be replaced."""
        self._restarts.labels(driver, policy).inc()

    def evicted(self, outcome: str) -> None:
        """One eviction was answered."""
        self._evictions.labels(outcome).inc()

    def event(self, outcome: str) -> None:
        """One Event came to this: written, counted, rate_limited, queue_full, refused or stopped."""
        self._events.labels(outcome).inc()

    def status(self, outcome: str) -> None:
        """One write of a policy's status was answered: written or refused."""
        self._status_writes.labels(outcome).inc()

    def reconcile_error(self, outcome: str) -> None:
        """One look at a node ended in an error: conflict, not_found, forbidden, request or crash."""
        self._errors.labels(outcome).inc()


def _named(state: State) -> str:
    return str(state) or "unknown"
