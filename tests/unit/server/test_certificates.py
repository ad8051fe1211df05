"""TLS with certificates that are renewed under the server, over real handshakes."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.server.certificates import RELOAD_SECONDS, CertificateError, Certificates
from tests.unit.server import pki
from tests.unit.server.pki import Pair


class Clock:
    """Time that passes when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    folder = tmp_path_factory.mktemp("pki")
    return pki.make(folder, "old"), pki.make(folder, "new")


@pytest.fixture
def files(pairs: tuple[Pair, Pair], tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    pairs[0].install(cert, key)
    return cert, key


@contextlib.asynccontextmanager
async def listening(certificates: Certificates) -> AsyncIterator[int]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=certificates.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def handshake(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> ssl.SSLObject:
    """Raises ssl.SSLError where the server's certificate is not the trusted one, or no handshake comes about."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    await reader.read()
    writer.close()
    return connection


async def meets(port: int, pair: Pair) -> bool:
    try:
        await handshake(port, pair.client())
    except ssl.SSLCertVerificationError:
        return False
    return True


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"], ids=["no server name", "server name"])
async def test_a_renewed_pair_is_served_ten_seconds_later_at_the_latest(pairs, files, name, caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    old, new = pairs
    async with listening(Certificates(str(files[0]), str(files[1]), clock)) as port:
        await handshake(port, old.client(), name)
        new.install(*files)
        clock.now += RELOAD_SECONDS - 0.1
        await handshake(port, old.client(), name)
        assert not caplog.records
        clock.now += 0.2
        await handshake(port, new.client(), name)
        assert [record.message for record in caplog.records] == ["certificate reloaded"]
        with pytest.raises(ssl.SSLCertVerificationError):
            await handshake(port, old.client(), name)


@pytest.mark.parametrize("broken", ["half", "mismatch", "gone", "passphrase", "empty"])
async def test_a_pair_that_cannot_be_used_changes_nothing_is_said_once_and_its_repair_is_taken(
    pairs, files, broken, caplog, tmp_path
):
    caplog.set_level(logging.INFO)
    clock = Clock()
    old, new = pairs
    cert, key = files
    async with listening(Certificates(str(cert), str(key), clock)) as port:
        match broken:
            case "half":
                key.write_bytes(new.key.read_bytes()[:60])
            case "mismatch":
                cert.write_bytes(new.cert.read_bytes())
            case "gone":
                cert.unlink()
            case "passphrase":
                pki.make(tmp_path, "locked", passphrase="secret").install(cert, key)
            case "empty":
                cert.write_bytes(b"")
        for _ in range(3):
            clock.now += RELOAD_SECONDS
            assert await meets(port, old)
        assert [record.message for record in caplog.records] == ["certificate not reloaded, the old one serves on"]
        assert str(cert) in caplog.records[0].error
        assert broken != "passphrase" or "passphrase" in caplog.records[0].error
        new.install(cert, key)
        clock.now += RELOAD_SECONDS
        assert await meets(port, new)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_file_is_told_at_the_start(files, missing):
    files[missing].unlink()
    with pytest.raises(CertificateError, match=str(files[missing])):
        Certificates(str(files[0]), str(files[1]))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_nothing_below_tls_1_2_is_spoken(pairs, files):
    old, _ = pairs
    async with listening(Certificates(str(files[0]), str(files[1]))) as port:
        ancient = old.client()
        ancient.set_ciphers("ALL:@SECLEVEL=0")
        ancient.minimum_version = ancient.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(port, ancient)
        exact = old.client()
        exact.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await handshake(port, exact)).version() == "TLSv1.2"
        assert (await handshake(port, old.client())).version() == "TLSv1.3"


async def test_http_1_1_is_all_that_is_agreed_on(pairs, files):
    client = pairs[0].client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    async with listening(Certificates(str(files[0]), str(files[1]))) as port:
        assert (await handshake(port, client)).selected_alpn_protocol() == "http/1.1"
