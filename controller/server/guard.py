"""Who may read the metrics: the API server decides, by TokenReview and SubjectAccessReview.

The rules are those of controller-runtime's ``pkg/metrics/filters``, so that a Prometheus that scrapes its controllers can
scrape this one: a bearer token, and a role that allows the verb ``get`` on the non-resource URL ``/metrics``. Tokens are
believed or refused for a minute, a permission holds for five minutes, a refusal for thirty seconds, a question may take
ten seconds. So a token that ends, or a role that is taken away, is noticed late by that much and no more.

What always holds:

- Closed when in doubt. Only an answer of the API server opens; no answer is 503, and is not remembered.
- Nobody's token is kept or logged. Caches know a token by a keyed hash that means nothing outside this process.
- Questions are bounded. They have a small budget of their own at the API server (the client's), only so many wait for it
  at a time, and several requests with one token ask once. Wrong tokens, however many, push no right one out of the cache.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from controller.api.reviews import UserInfo
from controller.kube.client import Client
from controller.kube.errors import ApiError, Forbidden, KubeError, NetworkError, ServerError, TooManyRequests
from controller.kube.reviews import authenticate, may
from controller.server.ttlcache import TTLCache

AUTHENTICATION_SECONDS: Final = 60.0
ALLOWED_SECONDS: Final = 300.0
DENIED_SECONDS: Final = 30.0
REVIEW_SECONDS: Final = 10.0
"""How long one question may take, its wait for the client's budget included."""
CACHE_SIZE: Final = 1024
MAX_QUESTIONS: Final = 64
"""How many questions may be under way; requests that would ask one more are refused with 503 at once."""
QUIET_SECONDS: Final = 60.0
"""The same failure is logged once in this time: how often it is met is up to whoever sends requests."""
REVIEWS_QPS: Final = 10.0
REVIEWS_BURST: Final = 20
"""Budget of the client that asks. A scraper needs two questions a minute."""
_BEARER: Final = re.compile(r"bearer[ ]+([A-Za-z0-9\-._~+/]+=*)[ ]*", re.IGNORECASE)
"""RFC 6750, section 2.1: anything else is no bearer token, and is not sent anywhere."""
_NOBODY: Final = UserInfo()
"""What the caches of tokens hold for one that is nobody's."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What to answer instead: an HTTP status and one line for the caller, who is told nothing but his own name."""

    status: int
    text: str


class Guard:
    """Judges requests for a path that is no resource.

    Args:
        client: Asks the API server; it should have a rate limiter of its own.
        verb: The verb that the caller must be allowed.
        path: And the non-resource URL.
    """

    def __init__(self, client: Client, *, verb: str = "get", path: str = "/metrics") -> None:
        self._client = client
        self._verb = verb
        self._path = path
        self._salt = secrets.token_bytes(32)
        # Wrong tokens apart from right ones: anyone can send as many wrong ones as he likes.
        self._users: TTLCache[bytes, UserInfo] = TTLCache(AUTHENTICATION_SECONDS, CACHE_SIZE)
        self._nobodies: TTLCache[bytes, UserInfo] = TTLCache(AUTHENTICATION_SECONDS, CACHE_SIZE)
        self._allowed: TTLCache[bytes, bool] = TTLCache(ALLOWED_SECONDS, CACHE_SIZE)
        self._denied: TTLCache[bytes, bool] = TTLCache(DENIED_SECONDS, CACHE_SIZE)
        # Questions under way, by what they are about: who has the same question waits for the same answer.
        self._asking: dict[bytes, asyncio.Task[Any]] = {}
        self._said: dict[str, float] = {}

    async def check(self, authorization: str | None) -> Refusal | None:
        """Judge a request by its Authorization header; None lets it pass."""
        match = _BEARER.fullmatch(authorization or "")
        if match is None:
            return Refusal(401, "a bearer token is needed")
        try:
            user = await self._user(match[1])
            if not user.username:
                return Refusal(401, "the token is not valid")
            if await self._permitted(user):
                return None
        except (KubeError, TimeoutError, _TooManyQuestions) as error:
            return self._unanswered(error)
        return Refusal(403, f"{user.username} may not {self._verb} {self._path}: bind a role that allows it")

    async def close(self) -> None:
        """End the questions under way."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _user(self, token: str) -> UserInfo:
        key = self._key(b"token", token.encode())
        known = self._users.get(key) or self._nobodies.get(key)
        return known if known is not None else await self._ask(key, lambda: self._authenticate(key, token))

    async def _authenticate(self, key: bytes, token: str) -> UserInfo:
        user = await authenticate(self._client, token)
        if user is None:
            self._nobodies.put(key, _NOBODY)
            return _NOBODY
        self._users.put(key, user)
        return user

    async def _permitted(self, user: UserInfo) -> bool:
        # Groups and extra come from unordered maps of the server; an order that differs costs one more question.
        key = self._key(b"user", msgspec.json.encode(user, order="sorted"))
        if self._allowed.get(key):
            return True
        if self._denied.get(key):
            return False
        return await self._ask(key, lambda: self._authorize(key, user))

    async def _authorize(self, key: bytes, user: UserInfo) -> bool:
        allowed = await may(self._client, user, self._verb, self._path)
        (self._allowed if allowed else self._denied).put(key, True)
        if not allowed:
            logger.info("metrics refused", extra={"user": user.username, "verb": self._verb, "path": self._path})
        return allowed

    async def _ask(self, key: bytes, question: Callable[[], Awaitable[T]]) -> T:
        """Ask once for all who wait; a caller who goes away does not take the answer from the others."""
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= MAX_QUESTIONS:
                raise _TooManyQuestions
            task = asyncio.create_task(_bounded(question), name="review")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        answer: T = await asyncio.shield(task)
        return answer

    def _answered(self, key: bytes, task: asyncio.Task[Any]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # everyone who waited may have gone: then nobody else looks at it

    def _unanswered(self, error: Exception) -> Refusal:
        """No answer is our trouble and not the caller's: 503 where it may pass, 500 where someone has to act."""
        text, status = _explained(error)
        now = asyncio.get_running_loop().time()
        kind = f"{type(error).__name__} {status}"
        if now - self._said.get(kind, float("-inf")) >= QUIET_SECONDS:
            self._said[kind] = now
            logger.warning("metrics refused, for nobody can be asked", extra={"error": text, "status": status})
        return Refusal(status, "the API server gives no answer about the token; the controller's log says why")

    def _key(self, kind: bytes, value: bytes) -> bytes:
        return kind + hmac.digest(self._salt, value, hashlib.sha256)


class _TooManyQuestions(Exception):  # noqa: N818
    """So many questions are under way that another one would not be answered in time."""


async def _bounded(question: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(REVIEW_SECONDS):
        return await question()


def _explained(error: Exception) -> tuple[str, int]:
    """The error's text with the remedy, and the HTTP status that it makes."""
    match error:
        case Forbidden():
            return f"{error}: grant the controller create on tokenreviews and subjectaccessreviews", 500
        case NetworkError() | ServerError() | TooManyRequests():
            return str(error), 503
        case ApiError():
            return str(error), 500
        case TimeoutError():
            return f"no answer of the API server within {REVIEW_SECONDS:g} s", 503
        case _TooManyQuestions():
            return f"{MAX_QUESTIONS} questions about tokens wait for the API server already", 503
        case _:
            return str(error), 503
