"""Health, readiness and metrics over HTTP, on one port or on two.

``/healthz`` says whether the event loop is alive: a heartbeat runs on it, and one that is late by more than
:data:`STALLED_SECONDS` means that something blocks the loop. ``/readyz`` says whether the caches are synced and, to callers
on this machine (a port-forward is one), which are missing and why; others learn no more than that. ``/metrics`` is
Prometheus text.

With an address of their own the metrics may ask for a token (:mod:`controller.server.guard`) and speak TLS
(:mod:`controller.server.certificates`), while the kubelet goes on probing plain HTTP. Without one they are on the port of
the probes, but only where that is on loopback: a port that the whole cluster can reach carries no data.

Everything is HTTP/1.1: there is no HTTP/2 whose streams could be reset in masses.
"""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from controller.server.certificates import CertificateError, Certificates
from controller.server.guard import Guard
from controller.server.requests import quiet_logger

STALLED_SECONDS = 10.0
BEAT_SECONDS = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
logger = logging.getLogger(__name__)


class ListenError(Exception):
    """The address cannot be listened on, or not in the way that is asked for. The message names it and the flag."""


@dataclass(frozen=True)
class MetricsAccess:
    """How ``/metrics`` is served.

    Attributes:
        listen: ``host:port`` of its own; empty to share the one of the probes.
        auth: Whether a token is asked for.
        cert_file: PEM certificate, for TLS; empty for plain HTTP.
        key_file: PEM private key.
    """

    listen: str = ""
    auth: bool = False
    cert_file: str = ""
    key_file: str = ""

    def check(self) -> None:
        """Hold the settings to what goes together.

        Raises:
            ListenError: They contradict each other.
        """
        if bool(self.cert_file) != bool(self.key_file):
            raise ListenError("--metrics-tls-cert-file and --metrics-tls-private-key-file belong together: give both")
        if (self.auth or self.cert_file) and not self.listen:
            flag = "--metrics-auth" if self.auth else "--metrics-tls-cert-file"
            raise ListenError(f"{flag} needs a port for the metrics alone: give --metrics-listen, such as :8443")


class Server:
    """Serves while its context is open.

    Args:
        address: ``host:port`` of the probes; port 0 takes a free one.
        not_ready: What is not ready yet, each with what is in the way.
        registry: What ``/metrics`` exposes.
        access: Where and how it does.
        guard: Judges who may read it; needed with ``access.auth``.
    """

    def __init__(
        self,
        address: str,
        not_ready: Callable[[], Mapping[str, str]],
        registry: CollectorRegistry,
        access: MetricsAccess | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._address = address
        self._not_ready = not_ready
        self._metrics = make_aiohttp_handler(registry)
        self._access = access or MetricsAccess()
        self._guard = guard if self._access.auth else None
        self._last_beat = 0.0
        self.port = 0
        """Of the probes."""
        self.metrics_port = 0
        """Of the metrics; that of the probes where they share it, 0 where they are not served."""
        assert not self._access.auth or guard is not None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Server"]:
        """Listen for as long as the context is open.

        Raises:
            ListenError: An address is not of the form host:port, or is taken; or the certificate cannot be used.
        """
        self._access.check()
        async with AsyncExitStack() as stack:
            if self._guard is not None:
                stack.push_async_callback(self._guard.close)
            await self._listen_for_metrics(stack)
            await self._listen_for_probes(stack)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            beat = tasks.create_task(self._beat(), name="heartbeat")
            try:
                yield self
            finally:
                beat.cancel()

    async def _listen_for_metrics(self, stack: AsyncExitStack) -> None:
        access = self._access
        if not access.listen:
            return
        certificates = _certificates(access)
        site = _Site("--metrics-listen", access.listen, {"/metrics": self._guarded_metrics})
        self.metrics_port = await site.open(stack, certificates)
        if self._guard is not None and certificates is None and not site.on_loopback:
            logger.warning(
                "tokens for the metrics travel in clear text",
                extra={"remedy": "give --metrics-tls-cert-file and --metrics-tls-private-key-file"},
            )
        extra = {"address": site.address, "tls": certificates is not None, "auth": access.auth}
        logger.info("metrics listening", extra=extra)

    async def _listen_for_probes(self, stack: AsyncExitStack) -> None:
        handlers: dict[str, Handler] = {"/healthz": self._healthz, "/readyz": self._readyz}
        site = _Site("--listen", self._address, handlers)
        shared = not self._access.listen and site.on_loopback
        if shared:
            handlers["/metrics"] = self._metrics
        self.port = await site.open(stack)
        if shared:
            self.metrics_port = self.port
        elif not self._access.listen:
            remedy = "give --metrics-listen, such as :8443 with --metrics-auth"
            logger.warning("metrics not served, for --listen is not on loopback", extra={"remedy": remedy})
        logger.info("listening", extra={"address": site.address})

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._last_beat = loop.time()
            await asyncio.sleep(BEAT_SECONDS)

    async def _healthz(self, _: web.Request) -> web.Response:
        late = asyncio.get_running_loop().time() - self._last_beat - BEAT_SECONDS
        if late > STALLED_SECONDS:
            return web.Response(status=503, text=f"the event loop's heartbeat is {late:.0f} s late\n")
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        missing = dict(self._not_ready())
        if not missing:
            return web.Response(text="ok\n")
        if not _is_loopback(request.remote or ""):
            return web.Response(status=503, text="not ready; the log says why, and so does this page by port-forward\n")
        body = orjson.dumps({"ready": False, "waiting": missing}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return web.Response(status=503, body=body, content_type="application/json")

    async def _guarded_metrics(self, request: web.Request) -> web.StreamResponse:
        if self._guard is not None:
            refusal = await self._guard.check(request.headers.get("Authorization"))
            if refusal is not None:
                challenge = {"WWW-Authenticate": "Bearer"} if refusal.status == web.HTTPUnauthorized.status_code else None
                return web.Response(status=refusal.status, text=f"{refusal.text}\n", headers=challenge)
        return await self._metrics(request)


class _Site:
    """One address and what is served there."""

    def __init__(self, flag: str, address: str, handlers: Mapping[str, Handler]) -> None:
        self._flag = flag
        self._given = address
        self._handlers = handlers
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit():
            raise ListenError(f"{flag} {address!r} is not host:port, such as 127.0.0.1:8080")
        self._host = host.strip("[]")
        self._port = int(port)

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return _is_loopback(self._host)

    @property
    def address(self) -> str:
        """Where it listens, with the port that was taken."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def open(self, stack: AsyncExitStack, certificates: Certificates | None = None) -> int:
        """Listen until the stack unwinds, and return the port.

        Raises:
            ListenError: The address is taken or not ours.
        """
        app = web.Application()
        for path, handler in self._handlers.items():
            app.router.add_get(path, handler, allow_head=False)
        runner = web.AppRunner(app, access_log=None, logger=quiet_logger())
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        context = None if certificates is None else certificates.context
        try:
            await web.TCPSite(runner, self._host or None, self._port, ssl_context=context).start()
        except (OSError, OverflowError) as error:
            text = getattr(error, "strerror", None) or error
            raise ListenError(f"{self._flag} {self._given}: {text}; choose another port") from error
        self._port = runner.addresses[0][1]
        return self._port


def _certificates(access: MetricsAccess) -> Certificates | None:
    if not access.cert_file:
        return None
    try:
        return Certificates(access.cert_file, access.key_file)
    except CertificateError as error:
        raise ListenError(f"--metrics-tls-cert-file: {error}") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
