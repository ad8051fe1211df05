"""What the dashboard shows: every panel with its queries, unit and description; dashboards/driver-upgrade.json follows.

Quantiles of states and upgrades are taken since the leader started, not over the last minutes: rollouts are rare, and a rate
over a quiet hour knows nothing. Metrics that other controllers have, too (client, queue, process), are joined with our build
info.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["stat", "timeseries", "heatmap"]
COLORS = {
    "upgrade-done": "#56A64B",
    "unknown": "#9E9E9E",
    "upgrade-required": "#C7D0D9",
    "cordon-required": "#FADE2A",
    "wait-for-jobs-required": "#F2CC0C",
    "pod-deletion-required": "#FFB357",
    "drain-required": "#FF9830",
    "pod-restart-required": "#5794F2",
    "validation-required": "#8AB8FF",
    "uncordon-required": "#B877D9",
    "upgrade-failed": "#E02F44",
}
"""By state, from grey (nothing happens) over the colours of work to green and red."""
REASON_COLORS = {"NoSlot": "#C7D0D9", "Skipped": "#8F99A3", "Paused": "#8F99A3", "Halted": "#E02F44"}
"""By reason, where one has a colour of its own: waiting for one's turn is no trouble."""
_OF = 'driver=~"$driver",policy=~"$policy"'
_OURS = "and on (job, instance) driver_upgrade_build_info"


@dataclass(frozen=True)
class Query:
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel. ``width`` is of 24 columns; ``stacked`` counts as a whole made of parts."""

    title: str
    kind: Kind
    unit: str
    description: str
    queries: tuple[Query, ...]
    width: int
    stacked: bool = False
    thresholds: tuple[tuple[str, float], ...] = field(default=())
    """Colours from these values on, for a stat; green below."""


def _nodes(more: str = "") -> str:
    return f"driver_upgrade_nodes{{{_OF}{more}}}"


def _quantile(q: str, name: str, by: str) -> str:
    work = ',state!~"unknown|upgrade-required|upgrade-done|upgrade-failed"'
    return f"histogram_quantile({q}, sum by ({by}, le) (driver_upgrade_{name}_bucket{{{_OF}{work}}}))"


def _latency(q: str, name: str, ours: str = _OURS) -> str:
    inner = f"rate({name}_bucket[$__rate_interval])"
    return f"histogram_quantile({q}, sum by (le) ({inner}{' ' + ours if ours else ''}))"


_BAD = (("#E02F44", 1),)
_DONE = _nodes(',state="upgrade-done"')
_LEFT = _nodes(',state!~"unknown|upgrade-done|upgrade-failed"')
_WAITING = f"sum({_LEFT})"
ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Rollout",
        (
            Panel(
                "Up to date",
                "stat",
                "percentunit",
                "Share of the managed nodes that run the driver that they should.",
                (Query(f"sum({_DONE}) / sum({_nodes()})", "up to date"),),
                4,
            ),
            Panel(
                "To be upgraded",
                "stat",
                "none",
                "Nodes that need the upgrade or are in the middle of it.",
                (Query(_WAITING, "nodes"),),
                4,
            ),
            Panel(
                "In progress",
                "stat",
                "none",
                "Nodes that hold a slot.",
                (Query(f"sum(driver_upgrade_nodes_in_progress{{{_OF}}})", "nodes"),),
                4,
            ),
            Panel(
                "Failed",
                "stat",
                "none",
                "Nodes in upgrade-failed: driver-upgrade explain NODE says why.",
                (Query(f"sum(driver_upgrade_nodes_failed{{{_OF}}})", "nodes"),),
                4,
                thresholds=_BAD,
            ),
            Panel(
                "Halted",
                "stat",
                "none",
                "Policies whose rollout is halted, because as many nodes failed as failureThreshold allows.",
                (Query(f"sum(driver_upgrade_halted{{{_OF}}})", "policies"),),
                4,
                thresholds=_BAD,
            ),
            Panel(
                "Estimated rest",
                "stat",
                "s",
                "Nodes to be upgraded, times what one took on average, divided by the slots. Known once one has ended.",
                (
                    Query(
                        f"{_WAITING} * sum(driver_upgrade_node_upgrade_seconds_sum{{{_OF}}})"
                        f" / (sum(driver_upgrade_node_upgrade_seconds_count{{{_OF}}}) > 0)"
                        f" / sum(clamp_max(driver_upgrade_slots_limit{{{_OF}}}, scalar(sum({_nodes()}))))",
                        "rest",
                    ),
                ),
                4,
            ),
            Panel(
                "Fleet by state",
                "timeseries",
                "none",
                "All managed nodes, each in its state.",
                (Query(f"sum by (state) ({_nodes()}) > 0", "{{state}}"),),
                16,
                stacked=True,
            ),
            Panel(
                "Pace",
                "timeseries",
                "none",
                "Nodes whose upgrade ended, per hour; each leader's first one, too.",
                (
                    Query(
                        "3600 * sum by (outcome) (rate("
                        f"driver_upgrade_node_upgrade_seconds_count{{{_OF}}}[$__rate_interval]))",
                        "{{outcome}} per hour",
                    ),
                ),
                8,
            ),
            Panel(
                "Waiting, by reason",
                "timeseries",
                "none",
                "Why nodes wait, for their grant or in the middle: docs/troubleshooting.md has every reason.",
                (Query(f"sum by (reason) (driver_upgrade_nodes_blocked{{{_OF}}})", "{{reason}}"),),
                12,
                stacked=True,
            ),
            Panel(
                "Slots and availability",
                "timeseries",
                "none",
                "Slots in use and allowed; nodes unavailable, and how many more may become so. No limit is not drawn.",
                (
                    Query(f"sum(driver_upgrade_nodes_in_progress{{{_OF}}})", "slots in use"),
                    Query(f"sum(driver_upgrade_slots_limit{{{_OF}}}) < Inf", "slots"),
                    Query(f"sum(driver_upgrade_nodes_unavailable{{{_OF}}})", "unavailable"),
                    Query(f"sum(driver_upgrade_unavailable_room{{{_OF}}}) < Inf", "room for more"),
                ),
                12,
            ),
        ),
    ),
    (
        "Time and failures",
        (
            Panel(
                "Time in a state (95 %)",
                "timeseries",
                "s",
                "What 95 % of the nodes needed at most in each state, since the leader started.",
                (Query(_quantile("0.95", "state_seconds", "state"), "{{state}}"),),
                8,
            ),
            Panel(
                "Time of a node's upgrade",
                "heatmap",
                "s",
                "How many upgrades took how long, from the grant to the end.",
                (
                    Query(
                        f"sum by (le) (increase(driver_upgrade_node_upgrade_seconds_bucket{{{_OF}}}[$__rate_interval]))",
                        "{{le}}",
                    ),
                ),
                8,
            ),
            Panel(
                "Oldest node of a state",
                "timeseries",
                "s",
                "How long the node that entered a state first has been in it. A line that climbs is a stuck node.",
                (Query(f"max by (state) (driver_upgrade_oldest_in_state_seconds{{{_OF}}}) > 0", "{{state}}"),),
                8,
            ),
            Panel(
                "Failures, by state and reason",
                "timeseries",
                "none",
                "Nodes that went to upgrade-failed since the leader started.",
                (Query(f"sum by (state, reason) (driver_upgrade_failures_total{{{_OF}}})", "{{state}}: {{reason}}"),),
                12,
                stacked=True,
            ),
            Panel(
                "Evictions, by outcome",
                "timeseries",
                "ops",
                "What the API server answered, of all drivers. Many of budget: a PodDisruptionBudget allows too little.",
                (Query("sum by (outcome) (rate(driver_upgrade_evictions_total[$__rate_interval])) > 0", "{{outcome}}"),),
                12,
            ),
        ),
    ),
    (
        "Controller",
        (
            Panel(
                "Leader",
                "timeseries",
                "none",
                "1 where the replica acts. Exactly one is to.",
                (Query("sum by (instance) (driver_upgrade_leader)", "{{instance}}"),),
                8,
                stacked=True,
            ),
            Panel(
                "Work queue",
                "timeseries",
                "none",
                "Nodes that wait for a worker.",
                (Query(f"sum(workqueue_depth {_OURS})", "depth"),),
                8,
            ),
            Panel(
                "Latencies (99 %)",
                "timeseries",
                "s",
                "Waiting for a worker, a request to the API server, lateness of the event loop.",
                (
                    Query(_latency("0.99", "workqueue_queue_duration_seconds"), "queue"),
                    Query(_latency("0.99", "rest_client_request_duration_seconds"), "request"),
                    Query(_latency("0.99", "driver_upgrade_event_loop_lag_seconds", ""), "event loop"),
                ),
                8,
            ),
            Panel(
                "Requests, by answer",
                "timeseries",
                "reqps",
                "404, 409 and 429 are everyday answers; other 4xx, 5xx and <error> are not.",
                (Query(f"sum by (code) (rate(rest_client_requests_total[$__rate_interval]) {_OURS})", "{{code}}"),),
                8,
            ),
            Panel(
                "Memory",
                "timeseries",
                "bytes",
                "Resident memory of each replica.",
                (Query(f"process_resident_memory_bytes {_OURS}", "{{instance}}"),),
                8,
            ),
            Panel(
                "Age of the last news",
                "timeseries",
                "s",
                "Since when the API server has told nothing of a resource. It sends a bookmark about once a minute.",
                (Query("max by (resource) (driver_upgrade_informer_last_event_age_seconds)", "{{resource}}"),),
                8,
            ),
        ),
    ),
)
