"""What the rollout came to. Every figure was counted on the way: by the watches, or by the API server in its audit log."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from controller.upgrade.reasons import Reason
from tools.controllerprocess import USER_AGENT
from tools.controlplane.audit import Request
from tools.demo.fleet import Budget, Fleet

_CREATED = 201
_TOO_MANY = 429


@dataclass(frozen=True)
class Evictions:
    """What became of the controller's evictions."""

    accepted: int
    refused: int
    """By a disruption budget."""


def evictions(requests: Iterable[Request]) -> Evictions:
    """Counts the controller's evictions in the audit log."""
    own = [one for one in requests if one.client == USER_AGENT and one.subresource == "eviction"]
    return Evictions(sum(one.code == _CREATED for one in own), sum(one.code == _TOO_MANY for one in own))


def rows(fleet: Fleet, sent: Evictions) -> list[tuple[str, str]]:
    """What to tell, line by line."""
    longest = max(fleet.nodes.values(), key=lambda cell: cell.seconds or 0.0)
    why = ", it waited for a job" if longest.name in fleet.held.get(Reason.JOBS_RUNNING, ()) else ""
    told = [
        ("Nodes upgraded", f"{fleet.upgraded} of {len(fleet.nodes)}"),
        ("From the new version to the last node", f"{fleet.elapsed:.1f} s"),
        ("Nodes out of service at once", f"at most {fleet.most_out}; the policy allows {fleet.limit}"),
        ("Longest node", f"{longest.name}, {longest.seconds or 0.0:.1f} s{why}"),
        ("Pods evicted", str(sent.accepted)),
        ("Evictions refused by a budget", str(sent.refused)),
        ("Drains that waited for a budget", str(len(fleet.held.get(Reason.POD_DISRUPTION_BUDGET, ())))),
    ]
    return told + [(f"Budget {name}", _budget(budget)) for name, budget in sorted(fleet.budgets.items())]


def table(fleet: Fleet, sent: Evictions) -> Table:
    """The summary."""
    made = Table.grid(padding=(0, 2))
    for name, value in rows(fleet, sent):
        made.add_row(name, value)
    return made


def _budget(budget: Budget) -> str:
    return f"at least {budget.lowest} pods were ready; {budget.needed} must be"
