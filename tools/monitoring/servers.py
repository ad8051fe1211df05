"""A Prometheus and an Alertmanager of one's own: loopback, free ports, a temporary folder, ended with the context.

Both are the programs of the Debian packages `prometheus` and `prometheus-alertmanager`. The rules are the project's own,
unchanged. What is short is how often is looked: targets are scraped and rules evaluated each second instead of twice a
minute, and the Alertmanager sends at once.
"""

import asyncio
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml

from tools.alerts import RULES
from tools.children import die_with_parent, signalled

T = TypeVar("T")
START_SECONDS = 60.0
PACE_SECONDS = 0.25
"""How often is asked again: the HTTP APIs of both programs have no watch."""
PACKAGES = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
_STOP_SECONDS = 20.0
_PORTS = range(20_000, 32_000)


class MonitoringError(RuntimeError):
    """A program is missing, did not start, or does not answer; the message says which and what to do."""


class Monitoring:
    """Both servers. Made by `monitoring`."""

    def __init__(self, prometheus: str, alertmanager: str, session: aiohttp.ClientSession) -> None:
        self.prometheus = prometheus
        self.alertmanager = alertmanager
        self._session = session

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector of an expression, now.

        Raises:
            MonitoringError: Prometheus does not take the expression.
        """
        return await self._data("query", query=expr)

    async def query_range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of an expression over a time (seconds since the epoch).

        Raises:
            MonitoringError: Prometheus does not take the expression.
        """
        return await self._data("query_range", query=expr, start=str(start), end=str(end), step=str(step))

    async def alerts(self) -> list[dict[str, Any]]:
        """What the Alertmanager holds as active."""
        found: list[dict[str, Any]] = await self._get(f"{self.alertmanager}/api/v2/alerts?active=true")
        return found

    async def until(self, look: Callable[[], Any], what: str, timeout: float = 120.0) -> Any:  # noqa: ASYNC109
        """Ask again and again until the answer is true in Python's sense; return it.

        Raises:
            TimeoutError: It did not become true in time.
        """
        try:
            async with asyncio.timeout(timeout):
                while not (found := await look()):  # noqa: ASYNC110 - an outside program offers nothing else
                    await asyncio.sleep(PACE_SECONDS)
                return found
        except TimeoutError:
            raise TimeoutError(f"not within {timeout:g} s: {what}") from None

    async def _data(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        answer = await self._get(f"{self.prometheus}/api/v1/{what}", parameters)
        if answer["status"] != "success":
            raise MonitoringError(f"{parameters['query']}: {answer['error']}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def _get(self, url: str, parameters: Mapping[str, str] | None = None) -> Any:
        async with self._session.get(url, params=parameters) as response:
            return await response.json(content_type=None)


@asynccontextmanager
async def monitoring(*targets: str) -> AsyncIterator[Monitoring]:
    """Run both over controllers (``host:port``) while the context is open.

    Raises:
        MonitoringError: A program is missing or did not start.
    """
    with tempfile.TemporaryDirectory(prefix="driver-upgrade-monitoring-") as folder:
        home = Path(folder)
        prometheus, alertmanager = (f"127.0.0.1:{port}" for port in _free_ports(2))
        _configure(home, targets, alertmanager)
        async with (
            _running(home, "prometheus", *_prometheus(home, prometheus)),
            _running(home, "prometheus-alertmanager", *_alertmanager(home, alertmanager)),
            aiohttp.ClientSession() as session,
        ):
            made = Monitoring(f"http://{prometheus}", f"http://{alertmanager}", session)
            for url in (made.prometheus, made.alertmanager):
                await made.until(partial(_is_ready, session, f"{url}/-/ready"), f"{url} ready", START_SECONDS)
            yield made


def _configure(home: Path, targets: Sequence[str], alertmanager: str) -> None:
    scrape = {"job_name": "driver-upgrade", "static_configs": [{"targets": list(targets), "labels": {"namespace": "test"}}]}
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [scrape],
    }
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    route = {"receiver": "nobody", "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
    settings = {"global": {"resolve_timeout": "5m"}, "route": route, "receivers": [{"name": "nobody"}]}
    (home / "alertmanager.yml").write_text(yaml.safe_dump(settings))


def _prometheus(home: Path, address: str) -> list[str]:
    return [
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'tsdb'}",
        f"--web.listen-address={address}",
        "--rules.alert.resend-delay=1s",
    ]


def _alertmanager(home: Path, address: str) -> list[str]:
    return [
        f"--config.file={home / 'alertmanager.yml'}",
        f"--storage.path={home / 'alerts'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]


@asynccontextmanager
async def _running(home: Path, name: str, *flags: str) -> AsyncIterator[None]:
    program = shutil.which(name)
    if program is None:
        raise MonitoringError(f"{name} is missing: apt-get install {PACKAGES[name]}")
    with (home / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, *flags, cwd=home, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
        )
        try:
            yield
        except TimeoutError as error:
            said = (home / f"{name}.log").read_text(errors="replace")[-2000:]
            error.add_note(f"{name} said:\n{said}")
            raise
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        signalled(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            signalled(process, signal.SIGKILL)
    await process.wait()


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.ok
    except aiohttp.ClientError:
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that are free, all of them different, and none that the system gives to whoever asks for any."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = secrets.choice(_PORTS)
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found
