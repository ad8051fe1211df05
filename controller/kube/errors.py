"""Errors of the API client, one class for each thing that a caller does about it.

::

    KubeError
    ├── ConfigError            the configuration is wrong: a human mends it, retrying is useless
    ├── NetworkError           no answer came: back off, then read before writing again (``maybe_applied``)
    ├── LineTooLong            a watch event beyond all reason: list again instead
    └── ApiError               the server answered, and not with success
        ├── Invalid            400, 422: the request is wrong; the same request will never succeed
        ├── Unauthorized       401: the credentials were refused even after they were renewed
        ├── Forbidden          403: a permission, an admission policy or a terminating namespace is in the way
        ├── NotFound           404: it is gone, or was never there
        ├── Conflict           409: read again, decide again (also AlreadyExists: see ``reason``)
        ├── Gone               410 or reason Expired: the resourceVersion is too old, list again
        ├── TooManyRequests    429: a disruption budget (see ``causes``) or throttling (see ``retry_after``)
        └── ServerError        5xx: back off; like NetworkError it may have been applied

A status that has no class of its own is a plain :class:`ApiError`. Messages come from servers, proxies and webhooks that
we do not control, so they are escaped and bounded here, once, and everyone may log them.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

MAX_MESSAGE: Final = 1024
"""Upper bound of a message in UTF-8 bytes."""
_MAX_PARSED_TEXT: Final = 8 * MAX_MESSAGE
MAX_RETRY_AFTER: Final = 60.0
"""Upper bound, in seconds, of what we wait because we were asked to. The API server asks for a second when it throttles, and
for some when a budget or its own start is in the way. A maintenance page in front of it may ask for an hour, and whoever
obeyed would be blind for up to an hour after the page is gone. A request a minute is no burden to anybody."""
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class Cause(msgspec.Struct, frozen=True, gc=False):
    """One entry of a Status' ``details.causes``, such as the budget that refused an eviction."""

    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The part of a Status that explains it."""

    name: str = ""
    causes: tuple[Cause, ...] | None = None
    retry_after_seconds: int = 0


class Status(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The API server's answer where there is no object to return."""

    kind: str = ""
    status: str = ""
    code: int = 0
    reason: str = ""
    message: str = ""
    details: StatusDetails | None = None


class KubeError(Exception):
    """Base of everything that this package raises on purpose."""


class ConfigError(KubeError):
    """No usable configuration. The message names the file or context and what to do about it."""


class LineTooLong(KubeError):  # noqa: N818 - named for what happened, as the others
    """A watch event exceeded the limit. It cannot be read from the watch; a list can still bring it."""


class NetworkError(KubeError):
    """No complete answer: refused, reset, cut off or timed out. Back off and try again.

    Attributes:
        maybe_applied: Whether the server may have acted on the request. False only when no connection stood to send it on.
    """

    def __init__(self, message: str, *, maybe_applied: bool = True) -> None:
        super().__init__(message)
        self.maybe_applied = maybe_applied


class ApiError(KubeError):
    """The server's refusal.

    Attributes:
        status: HTTP status code.
        reason: Machine-readable reason of the Status; empty where something else than the API server answered.
        message: Human-readable, escaped, at most 1 KiB.
        name: The object that the Status is about; empty where it is about none, as where the resource is not served.
        causes: Details of the Status.
        retry_after: Seconds that the server asks to wait, at most :data:`MAX_RETRY_AFTER`, or None.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        *,
        name: str = "",
        causes: tuple[Cause, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.name = name
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status} {self.reason or type(self).__name__}: {self.message}"

    def has_cause(self, reason: str) -> bool:
        """Whether the Status names this cause, such as ``DisruptionBudget``."""
        return any(cause.reason == reason for cause in self.causes)


class Invalid(ApiError):  # noqa: N818
    """400 or 422: the request itself is wrong. Report it; do not repeat it unchanged."""


class Unauthorized(ApiError):  # noqa: N818
    """401, after one renewal of the credentials. Back off; a human may have to act."""


class Forbidden(ApiError):  # noqa: N818
    """403. Read ``causes`` and ``message``: RBAC, an admission policy, or a namespace that is terminating."""


class NotFound(ApiError):  # noqa: N818
    """404: the object, or the whole resource, does not exist."""


class Conflict(ApiError):  # noqa: N818
    """409: a precondition failed, or the object exists. Read again and decide again."""


class Gone(ApiError):  # noqa: N818
    """410 or reason Expired: history was compacted. List again."""


class TooManyRequests(ApiError):  # noqa: N818
    """429: throttled, or an eviction that a disruption budget does not allow now."""


class ServerError(ApiError):
    """5xx. The request may have been applied nevertheless."""


_CLASSES: Final[Mapping[int, type[ApiError]]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}
_STATUS = msgspec.json.Decoder(Status)


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Make the error for an HTTP answer outside 2xx, whoever sent it and in whatever format."""
    parsed = _parse_status(body)
    if parsed is None:
        text = body[:_MAX_PARSED_TEXT].decode(errors="replace")
        parsed = Status(message=" ".join(_TAG.sub(" ", text).split()) or "(empty answer)")
    return _build(status, parsed, _retry_after(headers, parsed))


def from_status(status: Status) -> ApiError:
    """Make the error for a Status that came inside a stream, as the object of an ERROR event."""
    return _build(status.code or 500, status, _retry_after({}, status))


def parse_error_event(raw: msgspec.Raw | bytes) -> ApiError:
    """Make the error for the raw object of an ERROR event, readable or not."""
    return from_status(_parse_status(bytes(raw)) or Status(message=bytes(raw)[:_MAX_PARSED_TEXT].decode(errors="replace")))


def escape(text: str) -> str:
    """Escape control characters and bound the length, so that the text is safe in one line of a log or terminal."""
    safe = "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text[:MAX_MESSAGE])
    encoded = safe.encode(errors="backslashreplace")
    if len(encoded) <= MAX_MESSAGE and len(text) <= MAX_MESSAGE:
        return safe
    return encoded[: MAX_MESSAGE - 3].decode(errors="ignore") + "…"


def _parse_status(body: bytes) -> Status | None:
    try:
        parsed = _STATUS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return parsed if parsed.kind == "Status" else None


def _build(code: int, status: Status, retry_after: float | None) -> ApiError:
    causes = tuple(
        Cause(escape(c.reason), escape(c.message), escape(c.field)) for c in (status.details and status.details.causes) or ()
    )
    cls = Gone if status.reason == "Expired" else _CLASSES.get(code, ServerError if code >= 500 else ApiError)  # noqa: PLR2004
    name = escape(status.details.name) if status.details else ""
    return cls(code, escape(status.reason), escape(status.message), name=name, causes=causes, retry_after=retry_after)


def _retry_after(headers: Mapping[str, str], status: Status) -> float | None:
    """Seconds to wait, bounded; the header's HTTP-date form is not used by Kubernetes and is ignored."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER)
    seconds = status.details.retry_after_seconds if status.details else 0
    return min(float(seconds), MAX_RETRY_AFTER) if seconds > 0 else None
