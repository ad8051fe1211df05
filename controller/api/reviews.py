"""TokenReview and SubjectAccessReview: objects that are created for their status and never kept."""

from collections.abc import Mapping
from typing import Final

from controller.api.meta import KubeObject, ObjectMeta, Trimmed

_NO_METADATA: Final = ObjectMeta()


class UserInfo(Trimmed, frozen=True, gc=False):
    """Who someone is, as the API server says."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: Mapping[str, tuple[str, ...]] | None = None


class TokenReviewStatus(Trimmed, frozen=True, gc=False):
    """Whether the token is good, and whose it is."""

    authenticated: bool = False
    user: UserInfo = UserInfo()
    error: str = ""


class TokenReview(KubeObject, frozen=True, gc=False):
    """authentication.k8s.io/v1 TokenReview; its spec, the token, is never read back."""

    metadata: ObjectMeta = _NO_METADATA
    status: TokenReviewStatus = TokenReviewStatus()


class AccessReviewStatus(Trimmed, frozen=True, gc=False):
    """Whether it is allowed. Neither allowed nor denied means that no authorizer had an opinion: not allowed."""

    allowed: bool = False
    denied: bool = False
    reason: str = ""
    evaluation_error: str = ""


class SubjectAccessReview(KubeObject, frozen=True, gc=False):
    """authorization.k8s.io/v1 SubjectAccessReview."""

    metadata: ObjectMeta = _NO_METADATA
    status: AccessReviewStatus = AccessReviewStatus()
