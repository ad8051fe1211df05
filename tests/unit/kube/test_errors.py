"""Every answer becomes an error of the class that says what to do, with a message that is safe to log."""

import pytest

from controller.kube import errors
from controller.kube.errors import MAX_RETRY_AFTER, ApiError, from_response

STATUS = b'{"kind":"Status","status":"Failure","message":"m","reason":"%s","code":%d,"details":%s}'


@pytest.mark.parametrize(
    ("code", "reason", "cls"),
    [
        (400, "BadRequest", errors.Invalid),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (405, "MethodNotAllowed", ApiError),
        (409, "AlreadyExists", errors.Conflict),
        (410, "Gone", errors.Gone),
        (504, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.ServerError),
        (504, "Timeout", errors.ServerError),
    ],
)
def test_class_by_status_and_reason(code: int, reason: str, cls: type[ApiError]) -> None:
    error = from_response(code, {}, STATUS % (reason.encode(), code, b"null"))
    assert type(error) is cls
    assert (error.status, error.reason, error.message, error.causes) == (code, reason, "m", ())
    assert str(error) == f"{code} {reason}: m"


def test_causes_and_retry_after_of_an_eviction_refused_by_a_budget() -> None:
    details = b'{"name":"a","causes":[{"reason":"DisruptionBudget","message":"needs 2"}],"retryAfterSeconds":10}'
    error = from_response(429, {}, STATUS % (b"TooManyRequests", 429, details))
    assert error.has_cause("DisruptionBudget")
    assert not error.has_cause("Other")
    assert (error.name, error.retry_after) == ("a", 10)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("-3", None),
        ("3600", MAX_RETRY_AFTER),
        ("9" * 400, MAX_RETRY_AFTER),
    ],
)
def test_retry_after_header(header: str, seconds: float | None) -> None:
    assert from_response(503, {"Retry-After": header}, b"").retry_after == seconds


def test_nobody_makes_us_wait_for_an_hour_in_a_status_either() -> None:
    assert from_response(503, {}, STATUS % (b"ServiceUnavailable", 503, b'{"retryAfterSeconds":3600}')).retry_after == 60


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"Too many requests, please try again later.\n", "Too many requests, please try again later."),
        (b"<html><head><style>p{}</style></head><body><h1>502 Bad\nGateway</h1></body></html>", "502 Bad Gateway"),
        (b"", "(empty answer)"),
        (b"[1]", "[1]"),
        (b'{"kind":"Pod","message":"x"}', '{"kind":"Pod","message":"x"}'),
        (b'{"kind":"Status","code":"no number"}', '{"kind":"Status","code":"no number"}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_bodies_that_are_no_status(body: bytes, message: str) -> None:
    error = from_response(502, {}, body)
    assert error.message == message
    assert error.reason == ""


@pytest.mark.parametrize("text", ["a\x1b[31mred\nline", "\u202eabc", "x" * 5000, "\x00" * 1024, "é" * 1024, "\ud800"])
def test_messages_are_escaped_and_bounded(text: str) -> None:
    safe = errors.escape(text)
    assert safe.isprintable()
    assert len(safe.encode()) <= errors.MAX_MESSAGE
    assert errors.escape("plain é text") == "plain é text"


def test_error_events_without_a_readable_status_are_errors_too() -> None:
    assert type(errors.parse_error_event(b'{"kind":"Status","code":410,"reason":"Expired"}')) is errors.Gone
    assert type(errors.parse_error_event(b'"what"')) is errors.ServerError
