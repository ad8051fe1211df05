"""What each answer to an eviction means: one reason, one wait (design, section 5.3). None of them ends a drain."""

from http import HTTPStatus

import msgspec

from controller.kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    KubeError,
    NetworkError,
    NotFound,
    ServerError,
    TooManyRequests,
)
from controller.kube.writegate import NotLeading
from controller.upgrade.reasons import Reason

BUDGET_RETRY = 5.0
"""Seconds after which a pod is tried again whose budget has not changed, as kubectl drain does."""
SLOW_RETRY = 30.0
_BACKOFF_BASE = 1.0
_SEVERAL = "more than one PodDisruptionBudget"
_BY_WEBHOOK = "failed calling webhook"


class Answer(msgspec.Struct, frozen=True):
    """Why the pod was not evicted, and in how many seconds to try again."""

    reason: Reason | None
    message: str
    retry_seconds: float
    outcome: str = ""
    of_server: bool = True
    """Whether it is an answer at all, or the want of one; false where the server was not asked for lack of the lead."""


def classify(error: ApiError | NetworkError, failures: int, budgets: int) -> Answer:
    """Judge the answer to an eviction.

    Args:
        error: What was raised.
        failures: How many evictions of this pod have failed before, for the back-off.
        budgets: How many disruption budgets are known to guard the pod.
    """
    backoff = min(SLOW_RETRY, _BACKOFF_BASE * 2.0 ** min(failures, 10))
    if isinstance(error, NotLeading):
        return Answer(None, str(error), _BACKOFF_BASE, of_server=False)
    if isinstance(error, NetworkError):
        return Answer(Reason.API_UNAVAILABLE, str(error), backoff, outcome="unavailable")
    message = error.message
    match error:
        case NotFound():
            return Answer(None, message, BUDGET_RETRY, outcome="gone")
        case Conflict():
            return Answer(Reason.EVICTING, message, 0.5, outcome="conflict")
        case TooManyRequests():
            return _too_many(error)
        case Forbidden() if error.has_cause("NamespaceTerminating"):
            return Answer(Reason.NAMESPACE_TERMINATING, message, BUDGET_RETRY, outcome="namespace_terminating")
        case Forbidden():
            text = f"{message}: grant the controller create on pods/eviction, or see the webhook or policy named here"
            return Answer(Reason.FORBIDDEN, text, max(backoff, BUDGET_RETRY), outcome="forbidden")
        case ServerError() if _SEVERAL in message or (budgets > 1 and _by_budgets(error)):
            text = f"{message}: leave the pod only one of its budgets"
            return Answer(Reason.MULTIPLE_POD_DISRUPTION_BUDGETS, text, SLOW_RETRY, outcome="multiple_budgets")
        case ServerError():
            return Answer(Reason.API_UNAVAILABLE, message, backoff, outcome="unavailable")
        case _:
            return Answer(Reason.EVICTION_DENIED, message, max(backoff, BUDGET_RETRY), outcome="denied")


def _by_budgets(error: ServerError) -> bool:
    """Whether an error of a pod with several budgets may be theirs: a 500 that names nobody else."""
    return error.status == HTTPStatus.INTERNAL_SERVER_ERROR and _BY_WEBHOOK not in error.message


def _too_many(error: ApiError) -> Answer:
    """A budget's refusal names the budget among its causes; a throttled server does not."""
    for cause in error.causes:
        if cause.reason == "DisruptionBudget":
            return Answer(Reason.POD_DISRUPTION_BUDGET, cause.message, BUDGET_RETRY, outcome="budget")
    wait = error.retry_after or _BACKOFF_BASE
    return Answer(Reason.API_THROTTLED, error.message, wait, outcome="throttled")


def refusal(error: KubeError, failures: int) -> tuple[Reason, str] | None:
    """Say why a write of ours was not carried out; None where that is nobody's business.

    Nobody's are a conflict, a lost lead, and what may pass before anybody looks: only a server that does not answer, or asks
    for less, a second time is told of.

    Args:
        error: What was raised.
        failures: How many writes in a row have failed before.
    """
    match error:
        case Conflict() | NotFound() | NotLeading():
            return None
        case TooManyRequests():
            return (Reason.API_THROTTLED, str(error)) if failures else None
        case NetworkError() | ServerError():
            return (Reason.API_UNAVAILABLE, str(error)) if failures else None
        case _:
            return Reason.FORBIDDEN, explained(error, "the controller's role this, or see the admission policy named here")


def error_kind(error: Exception) -> str:
    """Return what an error counts as in ``driver_upgrade_reconcile_errors_total``."""
    match error:
        case Conflict():
            return "conflict"
        case NotFound():
            return "not_found"
        case Forbidden():
            return "forbidden"
        case KubeError():
            return "request"
        case _:
            return "crash"


def explained(error: KubeError, permission: str) -> str:
    """Return an error's text, with the remedy where a permission is missing: ``list on nodes cluster-wide``, say."""
    return f"{error}: grant {permission}" if isinstance(error, Forbidden) else str(error)
