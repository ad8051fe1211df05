"""Asking the API server who a bearer token is, and what that user may do: TokenReview and SubjectAccessReview.

Both are objects that are created and never kept: the answer is their status. What comes back from a token is never the
token, and errors that leave this module are cleared of it, so that their text may be logged.
"""

from typing import Final

from controller.api.reviews import UserInfo
from controller.kube.client import Client
from controller.kube.errors import ApiError, KubeError
from controller.kube.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

_HIDDEN: Final = "[token]"


async def authenticate(client: Client, token: str) -> UserInfo | None:
    """Ask whose token this is; None where it is nobody's: wrong, expired, or bound to an object that is gone.

    Raises:
        KubeError: There is no answer to the question. The message does not contain the token.
    """
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    try:
        review = await client.create(TOKEN_REVIEWS, body)
    except KubeError as error:
        # Not chained: the original's text is what must not be seen.
        raise _cleared(error, token) from None
    status = review.status
    return status.user if status.authenticated and status.user.username else None


async def may(client: Client, user: UserInfo, verb: str, path: str) -> bool:
    """Ask whether the user may do this with a path that is no resource, such as ``get`` with ``/metrics``.

    Raises:
        KubeError: There is no answer to the question.
    """
    spec = {
        "user": user.username,
        "uid": user.uid,
        "groups": user.groups or (),
        "extra": user.extra or {},
        "nonResourceAttributes": {"verb": verb, "path": path},
    }
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    review = await client.create(SUBJECT_ACCESS_REVIEWS, body)
    return review.status.allowed and not review.status.denied


def _cleared(error: KubeError, token: str) -> KubeError:
    """The same error with the token struck out of its text."""
    if isinstance(error, ApiError):
        message = error.message.replace(token, _HIDDEN)
        return type(error)(error.status, error.reason, message, retry_after=error.retry_after)
    return type(error)(str(error).replace(token, _HIDDEN))
