"""The API server reads label selectors as our parser does: it is held to the tables of the parser's own tests."""

import pytest
import pytest_asyncio

from tests.unit.api.selector_cases import ACCEPTED, OBJECTS, REFUSED
from tools.controlplane.api import Api, ApiError
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import LEASES

NAMESPACE = "selectors"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stored(control_plane: ControlPlane) -> None:
    """Leases with the labels of the tables, in a namespace where nothing else makes any."""
    kind = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
    async with Api(control_plane.access) as api:
        await api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        await api.apply(
            {**kind, "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}}
            for name, labels in OBJECTS.items()
        )


@pytest.fixture
def labelled(api: Api, stored: None) -> Api:
    """The API server that has them."""
    return api


@pytest.mark.parametrize(("text", "canonical", "selected"), ACCEPTED)
async def test_the_server_selects_the_same(labelled: Api, text: str, canonical: str, selected: set[str]):
    for form in (text, canonical):
        found = await labelled.list(LEASES, NAMESPACE, labels=form)
        assert {obj["metadata"]["name"] for obj in found} == selected


@pytest.mark.parametrize("text", [text for text, _ in REFUSED])
async def test_the_server_refuses_the_same(labelled: Api, text: str):
    with pytest.raises(ApiError) as refused:
        await labelled.list(LEASES, NAMESPACE, labels=text)
    assert refused.value.code == 400
