"""Every refusal, to every verb and resource the controller asks for, carried out or not: nothing is wrong, all recovers.

What it asks for is not believed to be the rows' list: it is what every scene is seen to send, and what the manifests grant.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.kube.reflector import ABSENT_RETRY
from tests.sim.harness import Run, simulate, simulate_with
from tests.sim.leaderworld import elect
from tests.sim.matrix import LEASE_ROWS, ROWS, TIMES, Call, election, met, verdicts
from tests.sim.network import FINE, Verdict
from tests.sim.scenes import SCENES, scene
from tests.sim.world import QUIET, Plan

MANIFESTS = Path(__file__).parents[2] / "manifests"
VERBS = {
    "list": "LIST",
    "watch": "WATCH",
    "get": "GET",
    "patch": "PATCH",
    "create": "POST",
    "update": "PUT",
    "delete": "DELETE",
}
ELSEWHERE = {("POST", "tokenreviews"), ("POST", "subjectaccessreviews")}
"""Asked by the server of the metrics, which no rollout needs: tests/unit/kube/test_reviews.py."""
SITUATIONS = [(call, situation) for call, situations in ROWS.items() for situation in situations]


def named(value: Call | str) -> str:
    return value if isinstance(value, str) else " ".join(value)


def meets(call: Call, situation: str, verdict: Verdict) -> Plan:
    """The plan of one combination. A 404 for all of a custom resource says that it has no definition.

    That is believed at the second time in a row; it is asked for again a minute later.
    """
    undefined = call in {("LIST", "driverupgradepolicies"), ("WATCH", "driverupgradepolicies")}
    if not undefined or verdict.answer is None or verdict.answer.code != 404:
        return met(call, situation, verdict)
    plan = met(call, situation, verdict, 1)
    plan.quiet = ABSENT_RETRY + QUIET
    return plan


@pytest.mark.parametrize(("call", "situation"), SITUATIONS, ids=named)
def test_every_answer(call: Call, situation: str):
    usual = simulate(met(call, situation, FINE, 0)).upgrades
    for verdict in verdicts(call[0]):
        outcome = simulate(meets(call, situation, verdict))
        assert not outcome.violations, (verdict, outcome.violations)
        assert outcome.upgrades == usual, verdict


@pytest.mark.parametrize("call", LEASE_ROWS, ids=named)
def test_every_answer_about_the_lease(call: Call):
    for verdict in verdicts(call[0]):
        cluster = elect(election(call, verdict))
        assert not cluster.checker.violations, (verdict, cluster.checker.violations)
        assert cluster.checker.upgrades == cluster.election.plan.nodes, verdict
        assert 0 < cluster.faults <= TIMES, "a create that was carried out is not sent again"


def requests(plan: Plan) -> dict[str, int]:
    """What is asked for in a plan."""
    found: dict[str, int] = {}

    async def play(run: Run) -> None:
        await run.play()
        found.update(run.world.server.requests)

    simulate_with(plan, play)
    return found


def sent() -> Iterator[str]:
    """Every kind of request that any scene, any row's situation and an election are seen to send."""
    for plan in (*map(scene, SCENES), *(met(call, situation, FINE, 0) for call, situation in SITUATIONS)):
        yield from requests(plan)
    yield from elect(election(("GET", "leases"), FINE)).world.server.requests


def test_every_request_that_is_sent_has_a_row():
    rows = {named(call) for call in (*ROWS, *LEASE_ROWS)}
    # A WatchList is counted apart, and is a watch.
    seen = {request.replace("WATCHLIST", "WATCH") for request in sent()}
    assert not (missing := seen - rows), f"{missing}: give them a row in tests/sim/matrix.py"
    assert not (unsent := rows - seen), f"{unsent}: nothing asks for these any more"


def granted() -> Iterator[Call]:
    """Verb and resource of everything that the controller's roles allow."""
    for path in (*(MANIFESTS / "base").rglob("*.yaml"), *(MANIFESTS / "driver-namespace").rglob("*.yaml")):
        for role in filter(None, yaml.safe_load_all(path.read_text())):
            for rule in role.get("rules") or ():
                for resource in rule.get("resources") or ():
                    kind, _, sub = resource.partition("/")
                    for verb in rule["verbs"]:
                        yield ("EVICT" if sub == "eviction" else VERBS[verb]), kind


def test_every_request_that_is_granted_has_a_row():
    assert set(granted()) - ELSEWHERE == {*ROWS, *LEASE_ROWS}


@pytest.mark.parametrize(("call", "situation"), SITUATIONS, ids=named)
def test_every_row_is_met(call: Call, situation: str):
    """Each situation stands for requests that are really sent."""
    plan = met(call, situation, Verdict(delay=0.001), 1)
    assert simulate(plan).faults == len(plan.crashes) + sum(map(len, plan.verdicts.values()))
