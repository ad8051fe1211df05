"""Who may read the metrics, with real tokens of the real control plane; over TLS with real certificates."""

import asyncio
import base64
import secrets
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio
import yaml

from tests.cluster.process import ROOT, Process
from tests.cluster.test_connection import Relay
from tests.cluster.world import World
from tests.unit.server import pki
from tools.account import permitted
from tools.controlplane.api import PATIENCE
from tools.controlplane.resources import PODS, SERVICE_ACCOUNTS, Object, Resource

TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "tokenreviews", "TokenReview", namespaced=False)
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", namespaced=False)
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
READER = ROOT / "manifests" / "base" / "rbac" / "metrics-reader.yaml"
AUTHENTICATED = ("--metrics-listen", "127.0.0.1:0", "--metrics-auth")


@dataclass
class Scraper:
    """A ServiceAccount of the test's own: the part of Prometheus."""

    cluster: World
    name: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.cluster.namespace}:{self.name}"

    async def token(self, bound_to: Object | None = None) -> str:
        """A token for an hour, bound to an object where one is given."""
        spec: Object = {"expirationSeconds": 3600}
        if bound_to is not None:
            reference = {"kind": "Pod", "apiVersion": "v1", "name": bound_to["metadata"]["name"]}
            spec["boundObjectRef"] = {**reference, "uid": bound_to["metadata"]["uid"]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = SERVICE_ACCOUNTS.path(self.cluster.namespace, self.name, "token")
        return str((await self.cluster.api.request("POST", path, body))["status"]["token"])

    async def allow(self) -> None:
        """Binds the role of `manifests/base/rbac/metrics-reader.yaml`, under a name of the test's own."""
        role = yaml.safe_load(READER.read_text())
        role["metadata"]["name"] = self.name
        await self.cluster.api.create(role)
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self.cluster.namespace}
        reference = {"kind": "ClusterRole", "name": self.name, "apiGroup": "rbac.authorization.k8s.io"}
        binding = {"apiVersion": role["apiVersion"], "kind": "ClusterRoleBinding", "metadata": {"name": self.name}}
        await self.cluster.api.create({**binding, "subjects": [subject], "roleRef": reference})
        review = {"user": self.user, "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
        await permitted(self.cluster.api, review)

    async def forbid(self) -> None:
        await self.cluster.api.delete(BINDINGS, self.name)
        await self.cluster.api.delete(CLUSTER_ROLES, self.name)


@asynccontextmanager
async def scraping(cluster: World, *, allowed: bool = True) -> AsyncIterator[Scraper]:
    made = Scraper(cluster, f"{cluster.pool}-scraper-{secrets.token_hex(2)}")
    metadata = {"name": made.name, "namespace": cluster.namespace}
    await cluster.api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    if allowed:
        await made.allow()
    try:
        yield made
    finally:
        if allowed:
            await made.forbid()


@pytest_asyncio.fixture
async def scraper(cluster: World) -> AsyncIterator[Scraper]:
    async with scraping(cluster) as made:
        yield made


async def scrape(controller: Process, token: str = "", *, tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Status and text of one request for the metrics."""
    address = (await controller.logged(msg="metrics listening"))["address"]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{'https' if tls else 'http'}://{address}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=tls or True) as response:
        return response.status, await response.text()


async def not_authenticated(cluster: World, token: str) -> None:
    """Waits until the API server itself no longer takes the token: it remembers some answers for seconds."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    async with asyncio.timeout(PATIENCE):
        while (await cluster.api.request("POST", TOKEN_REVIEWS.path(), body))["status"].get("authenticated"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def keep_secret(controller: Process, *tokens: str) -> None:
    """No token is in the log, whose level is debug, nor a half of one."""
    log = orjson.dumps(controller.lines).decode()
    for token in tokens:
        for part in (token, *token.split(".")[1:]):
            assert part not in log


async def test_the_right_token_reads_the_metrics_and_every_other_is_refused(cluster: World, scraper: Scraper):
    right = await scraper.token()
    header, payload, signature = right.split(".")
    forged = f"{header}.{payload}.{signature[::-1]}"
    async with scraping(cluster, allowed=False) as other, cluster.controller(*AUTHENTICATED) as controller:
        powerless = await other.token()
        assert (await scrape(controller))[0] == 401
        for wrong in ("nonsense", forged, f"{header}.{payload}."):
            code, text = await scrape(controller, wrong)
            assert (code, "driver_upgrade" in text) == (401, False)
        code, text = await scrape(controller, powerless)
        assert (code, "driver_upgrade" in text, other.user in text) == (403, False, True)
        for _ in range(2):
            code, text = await scrape(controller, right)
            assert (code, "driver_upgrade_build_info" in text) == (200, True)
        assert (await controller.get("/healthz"))[0] == 200
        assert (await controller.get("/metrics"))[0] == 404, "the port of the probes has no data"
        refused = await controller.logged(msg="metrics refused", user=other.user)
        assert refused["level"] == "info"
        keep_secret(controller, right, forged, powerless)


async def test_a_token_that_has_ended_is_refused(cluster: World, scraper: Scraper):
    """Its pod is gone, its ServiceAccount is gone: the two ways in which a token ends before its hour."""
    [node] = await cluster.nodes(1)
    spec = {
        "serviceAccountName": scraper.name,
        "nodeName": node,
        "containers": [{"name": "prometheus", "image": "prometheus:1"}],
        "tolerations": [{"operator": "Exists"}],
    }
    metadata = {"name": "prometheus", "namespace": cluster.namespace}
    pod = await cluster.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    async with cluster.controller(*AUTHENTICATED) as controller:
        bound, twin, free = await scraper.token(pod), await scraper.token(pod), await scraper.token()
        assert (await scrape(controller, twin))[0] == 200, "as long as the pod is there"
        await cluster.api.delete(PODS, "prometheus", cluster.namespace)
        await cluster.api.wait_gone(PODS, "prometheus", cluster.namespace)
        await not_authenticated(cluster, bound)
        assert (await scrape(controller, bound))[0] == 401
        assert (await scrape(controller, free))[0] == 200
        late = await scraper.token()
        await cluster.api.delete(SERVICE_ACCOUNTS, scraper.name, cluster.namespace)
        await not_authenticated(cluster, late)
        assert (await scrape(controller, late))[0] == 401
        keep_secret(controller, bound, twin, free, late)


async def test_a_token_past_its_hour_is_refused(cluster: World, scraper: Scraper):
    """The server gives no token for less than ten minutes, so this one is signed here, by its key; its twin is not late."""
    key = cluster.control_plane.directory / "sa.key"
    if not key.exists():
        pytest.skip("a given test cluster does not hand out the key of its tokens")
    right = await scraper.token()
    late, twin = (resigned(right, key, seconds) for seconds in (-60, 3600))
    async with cluster.controller(*AUTHENTICATED) as controller:
        assert (await scrape(controller, twin))[0] == 200
        assert (await scrape(controller, late))[0] == 401
        keep_secret(controller, late, twin)


def resigned(token: str, key: Path, seconds: int) -> str:
    """The token as the API server would have signed it two hours ago, to end that many seconds from now."""
    header, payload, _ = token.split(".")
    claims = orjson.loads(_decoded(payload))
    claims |= {"exp": claims["iat"] + seconds, "iat": claims["iat"] - 7200, "nbf": claims["nbf"] - 7200}
    text = f"{header}.{_encoded(orjson.dumps(claims))}"
    sign = ["openssl", "dgst", "-sha256", "-sign", str(key)]
    return f"{text}.{_encoded(_es256(subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout))}"


def _es256(der: bytes) -> bytes:
    """The two numbers of an ECDSA signature as a JWT has them, 32 bytes each, from a DER sequence of two integers."""
    assert (der[0], der[2]) == (0x30, 0x02)
    end = 4 + der[3]
    numbers = (der[4:end], der[end + 2 :])
    return b"".join(int.from_bytes(number).to_bytes(32) for number in numbers)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


async def test_without_an_answer_of_the_api_server_nobody_reads_and_with_it_the_right_one(cluster: World, scraper: Scraper):
    right = await scraper.token()
    relay = Relay(cluster.control_plane.server)
    async with cluster.controller(*AUTHENTICATED, server=f"https://127.0.0.1:{relay.reserve()}") as controller:
        for token in (right, "nonsense"):
            code, text = await scrape(controller, token)
            assert (code, "driver_upgrade" in text) == (503, False)
        await controller.logged(msg="metrics refused, for nobody can be asked", error="127.0.0.1")
        async with relay:
            assert (await scrape(controller, right))[0] == 200
            assert (await scrape(controller, "nonsense"))[0] == 401
        keep_secret(controller, right)


async def test_a_controller_that_may_not_ask_opens_to_nobody_and_says_what_it_lacks(cluster: World, scraper: Scraper):
    """It runs here as the scraper, who may do nothing but read metrics."""
    right = await scraper.token()
    kubeconfig = cluster.control_plane.kubeconfig_for(await scraper.token(), scraper.name)
    async with cluster.controller(*AUTHENTICATED, kubeconfig=kubeconfig) as controller:
        code, text = await scrape(controller, right)
        assert (code, "driver_upgrade" in text) == (500, False)
        line = await controller.logged(msg="metrics refused, for nobody can be asked")
        assert "grant the controller create on tokenreviews" in line["error"]
        keep_secret(controller, right)


async def test_over_tls_a_renewed_certificate_is_served_and_a_bad_one_changes_nothing(
    cluster: World, scraper: Scraper, tmp_path: Path
):
    token = await scraper.token()
    old, new = pki.make(tmp_path, "old"), pki.make(tmp_path, "new")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    old.install(cert, key)
    flags = (*AUTHENTICATED, "--metrics-tls-cert-file", str(cert), "--metrics-tls-private-key-file", str(key))
    async with cluster.controller(*flags) as controller:
        assert (await scrape(controller, token, tls=old.client()))[0] == 200
        assert (await scrape(controller, tls=old.client()))[0] == 401
        cert.write_bytes(new.cert.read_bytes())
        await served(controller, token, old, until="certificate not reloaded, the old one serves on")
        new.install(cert, key)
        await served(controller, token, None, until="certificate reloaded")
        assert (await scrape(controller, token, tls=new.client()))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await scrape(controller, token, tls=old.client())
        assert (await controller.get("/healthz"))[0] == 200, "probes stay plain HTTP"


async def served(controller: Process, token: str, pair: pki.Pair | None, until: str) -> None:
    """Connects again and again, always met by the pair where one is given, until a line is logged."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(PATIENCE):
        while not controller.found(msg=until):
            assert (await scrape(controller, token, tls=pair.client() if pair else trusting))[0] == 200
            await asyncio.sleep(0.5)
