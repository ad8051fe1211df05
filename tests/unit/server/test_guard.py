"""Who may read the metrics, in virtual time: what is asked, what is remembered, and that silence never opens."""

import asyncio
import logging
from typing import Any

import pytest

from controller.kube.errors import NetworkError
from controller.kube.ratelimiters import TokenBucket
from controller.server import guard as module
from controller.server.guard import Guard, Refusal
from tests.unit.kube.fake import HANG, Answer, FakeTransport, json_answer, make_client, status_answer

pytestmark = pytest.mark.looptime

TOKEN = "header.payload.signature"
BEARER = f"Bearer {TOKEN}"
PROMETHEUS = {
    "username": "system:serviceaccount:monitoring:prometheus",
    "uid": "u-1",
    "groups": ["system:serviceaccounts", "system:authenticated"],
    "extra": {"authentication.kubernetes.io/pod-name": ["prometheus-0"]},
}


def known(user: Any = PROMETHEUS) -> Answer:
    return json_answer({"kind": "TokenReview", "metadata": {}, "status": {"authenticated": True, "user": user}}, 201)


def unknown() -> Answer:
    status = {"user": {}, "error": "[invalid bearer token, service account token has expired]"}
    return json_answer({"kind": "TokenReview", "status": status}, 201)


def access(*, allowed: bool, **more: bool) -> Answer:
    return json_answer({"kind": "SubjectAccessReview", "status": {"allowed": allowed, **more}}, 201)


def guard(*script: Answer | Exception, **options: Any) -> tuple[Guard, FakeTransport]:
    transport = FakeTransport(*script)
    return Guard(make_client(transport, **options)), transport


def asked(transport: FakeTransport) -> list[str]:
    return [request.path.rpartition("/")[2] for request in transport.requests]


async def status(judge: Guard, authorization: str | None = BEARER) -> int:
    refusal = await judge.check(authorization)
    return refusal.status if refusal else 200


async def test_a_token_whose_user_may_get_metrics_passes_and_the_questions_say_all_of_the_user():
    judge, transport = guard(known(), access(allowed=True))
    assert await judge.check(BEARER) is None
    review, access_review = transport.requests
    assert (review.method, review.path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
    assert review.body["spec"] == {"token": TOKEN}
    assert (access_review.method, access_review.path) == ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews")
    assert access_review.body["spec"] == {
        "user": PROMETHEUS["username"],
        "uid": "u-1",
        "groups": PROMETHEUS["groups"],
        "extra": PROMETHEUS["extra"],
        "nonResourceAttributes": {"verb": "get", "path": "/metrics"},
    }


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", f"Token {TOKEN}", f"{BEARER} {TOKEN}", "Bearer a\tb", "Bearer ä"],
)
async def test_without_a_bearer_token_nobody_is_asked(authorization: str | None):
    judge, transport = guard()
    assert await status(judge, authorization) == 401
    assert not transport.requests


async def test_the_scheme_is_read_as_http_says_in_any_case():
    judge, _ = guard(known(), access(allowed=True))
    assert await status(judge, f"bEARER   {TOKEN}") == 200


async def test_a_wrong_token_is_refused_and_asked_about_once_a_minute():
    judge, transport = guard(unknown(), unknown())
    assert await judge.check(BEARER) == Refusal(401, "the token is not valid")
    await asyncio.sleep(module.AUTHENTICATION_SECONDS - 1)
    assert await status(judge) == 401
    assert asked(transport) == ["tokenreviews"]
    await asyncio.sleep(2)
    assert await status(judge) == 401
    assert asked(transport) == ["tokenreviews"] * 2


async def test_a_token_is_authenticated_again_after_a_minute_and_the_user_authorized_after_five():
    judge, transport = guard(known(), access(allowed=True), *[known()] * 5, access(allowed=True))
    for _ in range(31):  # a scrape every 10 s, from 0 to 300
        assert await status(judge) == 200
        await asyncio.sleep(10)
    assert asked(transport) == ["tokenreviews", "subjectaccessreviews", *["tokenreviews"] * 5, "subjectaccessreviews"]
    assert [request.at for request in transport.requests] == pytest.approx([0, 0, 60, 120, 180, 240, 300, 300], abs=0.1)


async def test_a_token_that_ends_is_refused_after_a_minute_at_the_latest():
    judge, _ = guard(known(), access(allowed=True), unknown())
    assert await status(judge) == 200
    await asyncio.sleep(module.AUTHENTICATION_SECONDS + 0.1)
    assert await status(judge) == 401


async def test_a_user_who_may_not_is_refused_by_name_and_asked_about_after_thirty_seconds():
    judge, transport = guard(known(), access(allowed=False), access(allowed=True))
    refusal = await judge.check(BEARER)
    assert refusal is not None
    assert (refusal.status, "monitoring:prometheus" in refusal.text) == (403, True)
    await asyncio.sleep(module.DENIED_SECONDS - 1)
    assert await status(judge) == 403
    assert asked(transport) == ["tokenreviews", "subjectaccessreviews"]
    await asyncio.sleep(2)
    assert await status(judge) == 200


async def test_a_denial_wins_over_a_permission():
    judge, _ = guard(known(), access(allowed=True, denied=True))
    assert await status(judge) == 403


async def test_users_who_differ_in_a_group_alone_are_judged_apart():
    other = {**PROMETHEUS, "groups": ["system:authenticated"]}
    judge, _ = guard(known(), access(allowed=True), known(other), access(allowed=False))
    assert await status(judge) == 200
    assert await status(judge, "Bearer another") == 403


async def test_a_name_without_authentication_is_nobodys():
    review = {"kind": "TokenReview", "status": {"authenticated": False, "user": PROMETHEUS}}
    judge, transport = guard(json_answer(review, 201))
    assert await status(judge) == 401
    assert asked(transport) == ["tokenreviews"]


async def test_a_review_that_authenticates_nobody_by_name_opens_nothing():
    judge, transport = guard(known({"username": ""}))
    assert await status(judge) == 401
    assert asked(transport) == ["tokenreviews"]


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (NetworkError("connection refused"), 503, "connection refused"),
        (status_answer(500, "InternalError", "etcd"), 503, "etcd"),
        (status_answer(429, "TooManyRequests", "later"), 503, "later"),
        (status_answer(403, "Forbidden", "no"), 500, "grant the controller create on tokenreviews"),
        (status_answer(401, "Unauthorized", "who"), 500, "who"),
        (status_answer(404, "NotFound", "no such API"), 500, "no such API"),
        (json_answer("nonsense", 201), 503, "unreadable"),
        (json_answer({"kind": "TokenReview", "status": {"authenticated": "yes"}}, 201), 503, "unreadable"),
    ],
)
@pytest.mark.parametrize("question", ["tokenreviews", "subjectaccessreviews"])
async def test_no_answer_never_opens_and_is_not_remembered(
    question: str, answer: Any, code: int, said: str, caplog: pytest.LogCaptureFixture
):
    before = [known()] if question == "subjectaccessreviews" else []
    if question == "subjectaccessreviews" and said == "unreadable" and isinstance(answer, Answer):
        answer = json_answer({"status": {"allowed": "yes"}}, 201)
    after = [access(allowed=True)] if before else [known(), access(allowed=True)]
    judge, _ = guard(*before, answer, *after)
    assert await status(judge) == code
    assert said in vars(caplog.records[-1])["error"]
    assert await status(judge) == 200


async def test_an_answer_without_a_status_opens_nothing():
    judge, _ = guard(json_answer({"kind": "TokenReview"}, 201), known(), json_answer({}, 201))
    assert await status(judge) == 401
    assert await status(judge, "Bearer another") == 403


async def test_a_question_that_hangs_is_given_up_after_ten_seconds():
    judge, _ = guard(Answer(201, (HANG,)), known(), access(allowed=True))
    begun = asyncio.get_running_loop().time()
    assert await asyncio.wait_for(status(judge), 2 * module.REVIEW_SECONDS) == 503
    assert asyncio.get_running_loop().time() - begun == pytest.approx(module.REVIEW_SECONDS)
    assert await status(judge) == 200


async def test_requests_with_one_token_ask_once_and_one_who_goes_away_takes_the_answer_from_nobody():
    slow = Answer(201, (3.0, *known().steps))
    judge, transport = guard(slow, access(allowed=True))
    scrapes = [asyncio.create_task(judge.check(BEARER)) for _ in range(5)]
    await asyncio.sleep(1)
    scrapes[0].cancel()
    assert await asyncio.gather(*scrapes[1:]) == [None] * 4
    assert asked(transport) == ["tokenreviews", "subjectaccessreviews"]


async def test_no_more_than_so_many_questions_wait_and_the_rest_is_refused_at_once():
    judge, transport = guard()
    waiting = [asyncio.create_task(judge.check(f"Bearer t{n}")) for n in range(module.MAX_QUESTIONS)]
    await asyncio.sleep(0.1)
    begun = asyncio.get_running_loop().time()
    assert await status(judge, "Bearer one-more") == 503
    assert asyncio.get_running_loop().time() == begun
    assert len(transport.requests) == module.MAX_QUESTIONS
    assert {refusal.status for refusal in await asyncio.wait_for(asyncio.gather(*waiting), 60) if refusal} == {503}


async def test_the_budget_is_the_clients_and_its_wait_counts():
    judge, transport = guard(limiter=TokenBucket(0.1, 1))
    refusals = await asyncio.gather(*(judge.check(f"Bearer t{n}") for n in range(3)))
    assert [refusal and refusal.status for refusal in refusals] == [503] * 3
    assert len(transport.requests) <= 2


async def test_wrong_tokens_push_no_right_one_out_of_the_cache():
    flood = module.CACHE_SIZE + 10
    judge, transport = guard(known(), access(allowed=True), *[unknown()] * flood)
    assert await status(judge) == 200
    for number in range(flood):
        assert await status(judge, f"Bearer wrong-{number}") == 401
    asked_before = len(transport.requests)
    assert await status(judge) == 200
    assert len(transport.requests) == asked_before
    assert len(judge._nobodies) == module.CACHE_SIZE


async def test_no_token_is_kept_or_logged_even_where_the_server_repeats_it(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    judge, _ = guard(
        status_answer(400, "BadRequest", f"cannot review {TOKEN}"),
        NetworkError(f"sent {TOKEN}"),
        unknown(),
    )
    refusals = [await judge.check(BEARER) for _ in range(3)]
    assert [refusal and refusal.status for refusal in refusals] == [500, 503, 401]
    assert [vars(record)["error"] for record in caplog.records if hasattr(record, "error")] == [
        "400 BadRequest: cannot review [token]",
        "sent [token]",
    ]
    kept = [judge._users._entries, judge._nobodies._entries, judge._allowed._entries, judge._denied._entries, judge._said]
    seen = [*kept, *(vars(record) for record in caplog.records), *refusals]
    assert TOKEN not in repr(seen)
    assert len(judge._nobodies) == 1


async def test_the_same_failure_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture):
    judge, _ = guard(*[NetworkError("connection refused")] * 8)
    for _ in range(7):
        assert await status(judge) == 503
        await asyncio.sleep(module.QUIET_SECONDS / 6)
    assert len(caplog.records) == 2


async def test_closing_ends_the_questions_under_way():
    judge, _ = guard()
    waiting = asyncio.create_task(judge.check(BEARER))
    await asyncio.sleep(0.1)
    await judge.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not judge._asking
