"""The proxy does what it says: each fault as the client of a real connection sees it, and nothing to anybody else."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from controller.kube import config
from controller.kube.client import Client
from controller.kube.errors import Conflict, Gone, NetworkError, ServerError, TooManyRequests
from controller.kube.resources import LEASES
from controller.kube.transport import AiohttpTransport
from controller.kube.watch import events
from tests.contract.server import lease
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.faultproxy.plan import Fault, Kind, Plan, Rule
from tools.faultproxy.proxy import REWOUND, FaultProxy

NAMESPACE = "fault-proxy"
WATCH = {"resourceVersion": "0"}
STATE = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}


@pytest_asyncio.fixture
async def through(api: Api, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[tuple[FaultProxy, Client]]:
    """The proxy and the controller's own client behind it; there is one Lease, `a`."""
    await api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    await api.apply([{**lease("a"), "metadata": {"name": "a", "namespace": NAMESPACE}}])
    async with FaultProxy.start(control_plane.access, tmp_path) as proxy:
        connection = await config.load(str(proxy.access().write(tmp_path / "kubeconfig")))
        async with AiohttpTransport(connection, user_agent="proxied") as transport:
            yield proxy, Client(transport)


async def holder(api: Api) -> str:
    found = await api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/a")
    return str(found["spec"]["holderIdentity"])


REQUESTS: dict[str, tuple[Fault, type[Exception], bool]] = {
    "lost": (Fault(Kind.LOST), NetworkError, False),
    "unanswered": (Fault(Kind.UNANSWERED), NetworkError, True),
    "truncated": (Fault(Kind.TRUNCATED), NetworkError, True),
    "hangs": (Fault(Kind.HANGS, seconds=0.3), NetworkError, False),
    "409": (Fault(Kind.REFUSED, 409), Conflict, False),
    "503 and done": (Fault(Kind.REFUSED, 503, applied=True), ServerError, True),
    "429": (Fault(Kind.REFUSED, 429, retry_after=7), TooManyRequests, False),
    "HTML": (Fault(Kind.HTML, 502), ServerError, False),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_a_client_sees_of_a_request(through: tuple[FaultProxy, Client], api: Api, name: str):
    proxy, client = through
    fault, error, applied = REQUESTS[name]
    await client.patch(LEASES, "a", {"spec": {"holderIdentity": "before"}}, namespace=NAMESPACE)
    proxy.plan = Plan(1, [Rule((fault,), ("patch",), times=1)])
    with pytest.raises(error) as caught:
        await client.patch(LEASES, "a", {"spec": {"holderIdentity": "after"}}, namespace=NAMESPACE)
    assert await holder(api) == ("after" if applied else "before")
    assert getattr(caught.value, "retry_after", None) == (7.0 if name == "429" else None)
    assert [(e.fault, e.passed_on) for e in proxy.did()] == [(str(fault), applied)]
    again = await client.patch(LEASES, "a", {"spec": {"holderIdentity": "again"}}, namespace=NAMESPACE)
    assert again.spec.holder_identity == "again"


@pytest.mark.parametrize("kind", [Kind.SLOW, Kind.LATE, Kind.TRICKLE])
async def test_what_is_slow_comes_whole(through: tuple[FaultProxy, Client], kind: Kind):
    proxy, client = through
    proxy.plan = Plan(1, [Rule((Fault(kind, seconds=0.2),), ("list",), times=1)])
    assert [item.metadata.name for item in (await client.list(LEASES, NAMESPACE)).items] == ["a"]
    assert proxy.did(str(kind))


@pytest.mark.parametrize(
    ("kind", "error"),
    [(Kind.CUT, NetworkError), (Kind.HALF_OPEN, NetworkError), (Kind.GONE, Gone), (Kind.LOST, NetworkError)],
)
async def test_what_a_client_sees_of_a_watch(through: tuple[FaultProxy, Client], kind: Kind, error: type[Exception]):
    proxy, client = through
    twice = 2 if kind is Kind.LOST else 1  # aiohttp itself asks again for what can be asked for twice
    proxy.plan = Plan(1, [Rule((Fault(kind, seconds=0.3),), ("watch",), times=twice)])
    with pytest.raises(error):
        async with client.watch(LEASES, NAMESPACE, params=WATCH, timeout=60) as stream:
            await anext(events(stream, LEASES))
    async with client.watch(LEASES, NAMESPACE, params=WATCH, timeout=60) as stream:
        assert (await anext(events(stream, LEASES))).type == "ADDED"


async def test_several_events_are_told_as_one(through: tuple[FaultProxy, Client]):
    proxy, client = through
    version = (await client.list(LEASES, NAMESPACE)).resource_version
    for number in range(5):
        last = await client.patch(LEASES, "a", {"spec": {"holderIdentity": f"h{number}"}}, namespace=NAMESPACE)
    proxy.plan = Plan(1, [Rule((Fault(Kind.COALESCED, seconds=0.5),), ("watch",), times=1)])
    async with client.watch(LEASES, NAMESPACE, params={"resourceVersion": version}, timeout=60) as stream:
        told = 1
        async for event in events(stream, LEASES):
            if event.resource_version == last.metadata.resource_version:
                break
            told += 1
    assert told < 5
    assert event.object is not None
    assert event.object.spec.holder_identity == "h4"


async def test_a_frozen_view_is_told_everything_when_it_thaws(through: tuple[FaultProxy, Client]):
    proxy, client = through
    listing = await client.list(LEASES, NAMESPACE)
    proxy.freeze("leases", listing.resource_version)
    async with client.watch(LEASES, NAMESPACE, params={"resourceVersion": listing.resource_version}, timeout=60) as stream:
        changed = await client.patch(LEASES, "a", {"metadata": {"labels": {"x": str(id(stream))}}}, namespace=NAMESPACE)
        await proxy.happens("frozen", verb="watch")
        old = await client.list(LEASES, NAMESPACE, resource_version="0")
        assert old.resource_version == listing.resource_version
        assert (await client.list(LEASES, NAMESPACE)).resource_version != listing.resource_version, "what must be new is new"
        proxy.thaw()
        assert (await anext(events(stream, LEASES))).resource_version == changed.metadata.resource_version


async def test_a_watch_that_is_truncated_ends_before_it_has_told_anything(through: tuple[FaultProxy, Client]):
    proxy, client = through
    proxy.plan = Plan(1, [Rule((Fault(Kind.TRUNCATED),), ("watch",), times=1)])
    async with client.watch(LEASES, NAMESPACE, params=STATE, timeout=60) as stream:
        assert not [event async for event in events(stream, LEASES)]


async def test_a_rewound_view_begins_in_the_past_and_catches_up_when_it_thaws(through: tuple[FaultProxy, Client]):
    proxy, client = through
    old = await client.patch(LEASES, "a", {"spec": {"holderIdentity": "old"}}, namespace=NAMESPACE)
    version = old.metadata.resource_version
    new = await client.patch(LEASES, "a", {"spec": {"holderIdentity": "new"}}, namespace=NAMESPACE)
    proxy.rewind("leases", version)
    async with client.watch(LEASES, NAMESPACE, params=STATE, timeout=60) as stream:
        told = events(stream, LEASES)
        begin, end = await anext(told), await anext(told)
        assert (begin.type, begin.resource_version) == ("ADDED", version)
        assert (end.initial_end, end.resource_version) == (True, version)
        assert proxy.did(REWOUND)
        proxy.thaw()
        assert (await anext(told)).resource_version == new.metadata.resource_version
    async with client.watch(LEASES, NAMESPACE, params=STATE, timeout=60) as stream:
        assert (await anext(events(stream, LEASES))).resource_version == new.metadata.resource_version


async def test_only_its_own_authority_vouches_for_it(through: tuple[FaultProxy, Client], control_plane: ControlPlane):
    proxy, _ = through
    foreign = ssl.create_default_context(cadata=control_plane.access.ca.decode())
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(proxy.access().server, ssl=foreign)
