"""Health, readiness and metrics, asked over a real loopback socket."""

import asyncio
import logging
import socket
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from controller.server import http
from controller.server.guard import Guard, Refusal
from controller.server.http import ListenError, MetricsAccess, Server
from tests.unit.kube.fake import FakeTransport, make_client


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_healthz_is_ok_while_the_loop_is_alive():
    async with Server("127.0.0.1:0", dict, CollectorRegistry()).serving() as server:
        assert await get(server.port, "/healthz") == (200, "ok\n")


async def test_healthz_says_how_late_the_heartbeat_is():
    async with Server("127.0.0.1:0", dict, CollectorRegistry()).serving() as server:
        assert (await get(server.port, "/healthz"))[0] == 200
        server._last_beat = asyncio.get_running_loop().time() - http.STALLED_SECONDS - 5
        status, text = await get(server.port, "/healthz")
    assert status == 503
    assert "heartbeat" in text


async def test_readyz_names_what_is_missing_and_why():
    missing = {"nodes": "nodes: 403 Forbidden: grant list,watch on nodes cluster-wide"}
    async with Server("127.0.0.1:0", lambda: missing, CollectorRegistry()).serving() as server:
        status, text = await get(server.port, "/readyz")
        assert status == 503
        assert missing["nodes"] in text
        missing.clear()
        assert await get(server.port, "/readyz") == (200, "ok\n")


async def test_metrics_are_the_registrys():
    registry = CollectorRegistry()
    Counter("driver_upgrade_tests", "Tests.", registry=registry).inc(3)
    async with Server("127.0.0.1:0", dict, registry).serving() as server:
        status, text = await get(server.port, "/metrics")
    assert status == 200
    assert "driver_upgrade_tests_total 3.0" in text


@pytest.mark.parametrize("address", ["8080", "127.0.0.1:http", ""])
async def test_an_address_without_a_port_is_refused_by_name(address):
    with pytest.raises(ListenError, match="--listen"):
        async with Server(address, dict, CollectorRegistry()).serving():
            pass


async def test_a_taken_port_is_refused_with_the_remedy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ListenError, match="choose another port"):
            async with Server(f"127.0.0.1:{taken.getsockname()[1]}", dict, CollectorRegistry()).serving():
                pass


async def status(port: int, path: str, **options: Any) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}", **options) as response:
        return response.status


async def test_metrics_with_a_port_of_their_own_are_on_no_other():
    access = MetricsAccess("127.0.0.1:0")
    async with Server("127.0.0.1:0", dict, CollectorRegistry(), access).serving() as server:
        assert server.metrics_port != server.port
        assert await status(server.metrics_port, "/metrics") == 200
        assert await status(server.port, "/metrics") == 404
        assert await status(server.metrics_port, "/healthz") == 404
        assert await status(server.port, "/healthz") == 200


async def test_a_port_that_others_can_reach_carries_no_metrics_unless_it_is_said(monkeypatch, caplog):
    # Listens on loopback as all tests do, and takes it for an address of the network.
    monkeypatch.setattr(http, "_is_loopback", lambda _host: False)
    missing = {"nodes": "nodes: 403 Forbidden: grant list,watch on nodes cluster-wide"}
    async with Server("127.0.0.1:0", lambda: missing, CollectorRegistry()).serving() as server:
        assert await status(server.port, "/metrics") == 404
        assert server.metrics_port == 0
        code, text = await get(server.port, "/readyz")
        assert code == 503
        assert "nodes" not in text
    assert "--metrics-listen" in caplog.records[0].remedy


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("", False), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.com", False),
    ],
)  # fmt: skip
def test_what_only_this_machine_can_reach(host, expected):
    assert http._is_loopback(host) is expected


class Judge(Guard):
    """Answers as told, and notes what it was asked."""

    def __init__(self, refusal: Refusal | None) -> None:
        super().__init__(make_client(FakeTransport()))
        self.refusal = refusal
        self.headers: list[str | None] = []

    async def check(self, authorization: str | None) -> Refusal | None:
        self.headers.append(authorization)
        return self.refusal


@pytest.mark.parametrize(
    ("refusal", "code", "challenge"),
    [
        (Refusal(401, "who?"), 401, "Bearer"),
        (Refusal(403, "no"), 403, None),
        (Refusal(503, "x"), 503, None),
        (None, 200, None),
    ],
)
async def test_the_guard_is_asked_before_metrics_are_told(refusal, code, challenge):
    registry = CollectorRegistry()
    Counter("driver_upgrade_tests", "Tests.", registry=registry).inc(3)
    judge = Judge(refusal)
    server = Server("127.0.0.1:0", dict, registry, MetricsAccess("127.0.0.1:0", auth=True), judge)
    async with server.serving(), aiohttp.ClientSession(headers={"Authorization": "Bearer x"}) as session:
        async with session.get(f"http://127.0.0.1:{server.metrics_port}/metrics") as response:
            assert response.status == code
            assert response.headers.get("WWW-Authenticate") == challenge
            assert ("driver_upgrade_tests_total 3.0" in await response.text()) == (code == 200)
        async with session.head(f"http://127.0.0.1:{server.metrics_port}/metrics") as response:
            assert response.status == 405
    assert judge.headers == ["Bearer x"]


@pytest.mark.parametrize(
    ("access", "flag"),
    [
        (MetricsAccess(auth=True), "--metrics-auth needs .* --metrics-listen"),
        (MetricsAccess(cert_file="a", key_file="b"), "--metrics-tls-cert-file needs .* --metrics-listen"),
        (MetricsAccess("127.0.0.1:0", cert_file="a"), "--metrics-tls-private-key-file"),
        (MetricsAccess("127.0.0.1:0", key_file="b"), "--metrics-tls-cert-file"),
        (MetricsAccess("127.0.0.1:0", cert_file="/no/such", key_file="/nor/this"), "--metrics-tls-cert-file: /no/such"),
        (MetricsAccess("8443"), "--metrics-listen '8443' is not host:port"),
        (MetricsAccess("127.0.0.1:99999"), "--metrics-listen 127.0.0.1:99999"),
    ],
)
async def test_settings_that_do_not_go_together_are_refused_by_flag(access, flag):
    with pytest.raises(ListenError, match=flag):
        async with Server("127.0.0.1:0", dict, CollectorRegistry(), access, Judge(None)).serving():
            pass


@pytest.mark.parametrize(("host", "warned"), [(False, True), (True, False)], ids=["network", "loopback"])
async def test_tokens_in_clear_text_are_warned_of(monkeypatch, caplog, host, warned):
    monkeypatch.setattr(http, "_is_loopback", lambda _host: host)
    access = MetricsAccess("127.0.0.1:0", auth=True)
    async with Server("127.0.0.1:0", dict, CollectorRegistry(), access, Judge(None)).serving():
        said = [record for record in caplog.records if record.message == "tokens for the metrics travel in clear text"]
    assert bool(said) is warned


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /metrics HTTP/1.1\r\nAuthorization: Bearer s3cr3t\x01\r\n\r\n",
        "GET /metrics HTTP/1.1\r\ns3cr3t\r\n\r\n",
        "\x16\x03\x01s3cr3t\r\n\r\n",
    ],
    ids=["control character", "no colon", "TLS"],
)
async def test_a_malformed_request_is_refused_and_its_text_is_not_logged(request_text, caplog):
    caplog.set_level("DEBUG")
    async with Server("127.0.0.1:0", dict, CollectorRegistry()).serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request_text.encode())
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 30)
        writer.close()
    assert "s3cr3t" not in caplog.text
    assert "s3cr3t" not in repr([vars(record) for record in caplog.records])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record for record in caplog.records if record.message == "malformed request refused"]
