"""Whatever holds a node where it is: explain, the metric and the policy's status tell it with the same word, and once."""

from collections import Counter

import pytest

from controller.operate.fleetmetrics import FleetCollector
from controller.upgrade.admission import in_line, why_waiting
from controller.upgrade.explain import Explanation, explain
from controller.upgrade.facts import Facts, facts_of
from controller.upgrade.fleet import Fleet
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from controller.upgrade.summary import waiting
from controller.upgrade.survey import headline
from tests.unit.upgrade.builders import KEYS, NEW, OLD, at, node, policy, record, view
from tests.unit.upgrade.cases import Case
from tests.unit.upgrade.test_states import ROWS

S, R = State, Reason
THEIRS = {KEYS.requestor_mode: ""}
CAPPED = policy(maxUnavailable=0)
LEFT_ALONE = (
    Case("another operator's, without a label", view(node(notes=THEIRS), OLD)),
    Case("another operator's, done", at(S.UPGRADE_DONE, NEW, notes=THEIRS)),
    Case("another operator's, waiting", at(S.UPGRADE_REQUIRED, OLD, notes=THEIRS)),
    Case("another operator's, in progress by its label", view(node(S.DRAIN_REQUIRED, notes=THEIRS, cordoned=True), OLD)),
    Case("another operator's, failed by its label", view(node(S.UPGRADE_FAILED, notes=THEIRS, cordoned=True), OLD)),
    Case("a label that nobody knows", view(node("nonsense"), OLD)),
    Case("a label that nobody knows, in progress", view(node("nonsense", record(S.DRAIN_REQUIRED), cordoned=True), OLD)),
    Case("no driver pod", at(S.UPGRADE_DONE)),
    Case("no driver pod yet", view(node())),
    Case("no driver pod, to be upgraded", at(S.UPGRADE_REQUIRED)),
)


class Told:
    """One node beside another that has the policy's only slot, and what is told of it."""

    def __init__(self, case: Case) -> None:
        seen, now = case.view, case.now
        self.facts, self._fleet = facts_of(seen, now), Fleet()
        self._fleet.update("gpu", "busy", Facts(self.facts.policy, S.DRAIN_REQUIRED, managed=True, in_progress=True))
        self._fleet.update("gpu", "n1", self.facts)
        self._policy, self._tally = seen.policy, self._fleet.tally("gpu", self.facts.policy)
        self.explained: Explanation = explain(seen, self.facts, self._tally, ("busy",), now)
        why = why_waiting(seen.policy, self._tally, self.facts) if seen.policy else None
        self._decisions = {("gpu", "n1"): in_line(case.decided(), why)}

    @property
    def metric(self) -> dict[str, float]:
        known = [self._policy] if self._policy else []
        families = FleetCollector(self._fleet, lambda: known, self._decisions, lambda: 0.0).collect()
        (blocked,) = (family for family in families if family.name == "driver_upgrade_nodes_blocked")
        return {sample.labels["reason"]: sample.value for sample in blocked.samples}

    @property
    def status(self) -> dict[str, int]:
        assert self._policy is not None
        return {item["reason"]: item["nodes"] for item in waiting(self._policy, self._tally)}

    @property
    def listed(self) -> bool:
        """Whether the status names it among the nodes that are active or failed."""
        return any("n1" in dates for state, dates in self._tally.since.items() if state is not S.UPGRADE_REQUIRED)


def named(case: Case) -> str:
    return f"{case.name} [{case.start}]"


@pytest.mark.parametrize(
    "case", [case for case in (*ROWS, *LEFT_ALONE) if "gran" not in case.by.__name__ and case.view.policy], ids=named
)
def test_what_is_explained_is_counted_and_in_the_status(case: Case):
    told = Told(case)
    reason = told.explained.reason
    if told.explained.next or not (told.facts.managed or told.facts.in_progress):
        return
    assert told.metric == ({str(reason): 1} if reason else {})
    if not told.listed:
        assert told.status == ({str(reason): 1} if reason else {})


@pytest.mark.parametrize("case", LEFT_ALONE, ids=named)
def test_what_must_be_left_alone_or_has_no_driver_is_told(case: Case):
    told = Told(case)
    assert told.explained.reason in {R.OTHER_OPERATOR, R.INVALID_STATE, R.DRIVER_POD_MISSING}
    assert told.status == {str(told.explained.reason): 1}


def test_the_rows_hold_every_kind_of_wait():
    said = Counter(Told(case).explained.reason for case in (*ROWS, *LEFT_ALONE))
    rest = {R.NO_SLOT, R.SKIPPED, R.OTHER_OPERATOR, R.INVALID_STATE, R.DRIVER_POD_MISSING, R.DAEMONSET_GONE}
    assert rest | {R.REVISION_UNKNOWN, R.POLICY_INVALID, R.JOBS_RUNNING, R.POD_DISRUPTION_BUDGET} <= set(said)


@pytest.mark.parametrize(
    ("situation", "on", "word"),
    [
        ("waiting", at(S.UPGRADE_REQUIRED, OLD, notes=THEIRS), "Blocked"),
        ("outdated, not labelled", view(node(notes=THEIRS), OLD), "Blocked"),
        ("outdated under a label that nobody knows", view(node("nonsense"), OLD), "Blocked"),
        ("up to date", at(S.UPGRADE_DONE, NEW, notes=THEIRS), "Idle"),
        ("up to date under a label that nobody knows", view(node("nonsense"), NEW), "Idle"),
        ("without a driver pod", at(S.UPGRADE_DONE), "Idle"),
        ("kept waiting by maxUnavailable", at(S.UPGRADE_REQUIRED, OLD, policy=CAPPED), "Blocked"),
        (
            "unavailable itself, whatever maxUnavailable",
            at(S.UPGRADE_REQUIRED, OLD, policy=CAPPED, cordoned=True),
            "Upgrading",
        ),
    ],
)
def test_a_policy_is_blocked_only_by_nodes_that_are_to_be_upgraded(situation: str, on, word: str):
    fleet, by = Fleet(), on.policy
    fleet.update("gpu", "n1", facts_of(on, 0.0))
    assert headline(by, fleet.tally("gpu", by.full_name))[0] == word
