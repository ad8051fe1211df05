"""Every answer to an eviction has one meaning and one wait; none of them ends a drain."""

import pytest

from controller.kube.errors import (
    ApiError,
    Cause,
    Conflict,
    Forbidden,
    Invalid,
    NetworkError,
    NotFound,
    ServerError,
    TooManyRequests,
)
from controller.kube.writegate import NotLeading
from controller.operate.answers import BUDGET_RETRY, SLOW_RETRY, classify
from controller.upgrade.reasons import Reason

BUDGET = Cause(reason="DisruptionBudget", message="The disruption budget web needs 3 healthy pods and has 3 currently")
TERMINATING = Cause(reason="NamespaceTerminating", message="namespace a is being terminated")

TABLE = [
    ("pod is gone", NotFound(404), 0, None, "gone"),
    ("pod or budget changed meanwhile", Conflict(409), 1, Reason.EVICTING, "conflict"),
    ("budget refuses", TooManyRequests(429, causes=(BUDGET,)), 1, Reason.POD_DISRUPTION_BUDGET, "budget"),
    ("server throttles", TooManyRequests(429, retry_after=7), 1, Reason.API_THROTTLED, "throttled"),
    ("namespace goes", Forbidden(403, causes=(TERMINATING,)), 0, Reason.NAMESPACE_TERMINATING, "namespace_terminating"),
    ("no permission", Forbidden(403, message="cannot create pods/eviction"), 0, Reason.FORBIDDEN, "forbidden"),
    ("two budgets known", ServerError(500), 2, Reason.MULTIPLE_POD_DISRUPTION_BUDGETS, "multiple_budgets"),
    (
        "two budgets by the text",
        ServerError(500, message="This pod has more than one PodDisruptionBudget, which the eviction subresource ..."),
        0,
        Reason.MULTIPLE_POD_DISRUPTION_BUDGETS,
        "multiple_budgets",
    ),
    ("server error, two budgets", ServerError(503), 2, Reason.API_UNAVAILABLE, "unavailable"),
    (
        "webhook not reached, two budgets",
        ServerError(500, message='Internal error occurred: failed calling webhook "a.example.com": timed out'),
        2,
        Reason.API_UNAVAILABLE,
        "unavailable",
    ),
    ("server error", ServerError(503), 1, Reason.API_UNAVAILABLE, "unavailable"),
    ("gateway timeout", ServerError(504), 0, Reason.API_UNAVAILABLE, "unavailable"),
    ("no answer", NetworkError("connection reset"), 0, Reason.API_UNAVAILABLE, "unavailable"),
    ("webhook denies", ApiError(418, message="not on a Friday"), 0, Reason.EVICTION_DENIED, "denied"),
    ("webhook denies as invalid", Invalid(422, message="not on a Friday"), 0, Reason.EVICTION_DENIED, "denied"),
]


@pytest.mark.parametrize(("error", "budgets", "reason", "outcome"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_each_answer_has_one_meaning(error, budgets, reason, outcome):
    answer = classify(error, 0, budgets)
    assert (answer.reason, answer.outcome) == (reason, outcome)
    assert 0 < answer.retry_seconds <= SLOW_RETRY


def test_a_budgets_refusal_is_its_own_words_and_is_tried_again_as_kubectl_does():
    answer = classify(TooManyRequests(429, "TooManyRequests", "Cannot evict pod", causes=(BUDGET,)), 9, 1)
    assert (answer.message, answer.retry_seconds) == (BUDGET.message, BUDGET_RETRY)


def test_a_throttling_server_is_obeyed():
    assert classify(TooManyRequests(429, retry_after=7), 0, 0).retry_seconds == 7


def test_failures_back_off_and_stay_bounded():
    waits = [classify(NetworkError("reset"), n, 0).retry_seconds for n in range(12)]
    assert waits == sorted(waits)
    assert waits[0] < 2
    assert waits[-1] == SLOW_RETRY


def test_what_was_not_sent_for_lack_of_the_lead_says_nothing_about_pod_or_server():
    answer = classify(NotLeading("POST x: not sent, another replica leads", maybe_applied=False), 5, 0)
    assert (answer.reason, answer.of_server, answer.outcome) == (None, False, "")
    assert 0 < answer.retry_seconds < BUDGET_RETRY


def test_denials_are_not_repeated_at_once():
    assert classify(ApiError(418), 0, 0).retry_seconds >= BUDGET_RETRY
    assert classify(Forbidden(403), 0, 0).retry_seconds >= BUDGET_RETRY


def test_a_pod_that_is_still_seen_after_a_404_is_asked_soon_again() -> None:
    """The 404 may be a proxy's; a pod that is gone is no longer seen, and nobody asks."""
    assert classify(NotFound(404), 5, 0).retry_seconds == BUDGET_RETRY
