"""Which drivers claims are of is remembered as long as the node is emptied; what cannot be told is not guessed."""

import logging
from typing import Any

import pytest

from controller.kube.errors import ServerError
from controller.operate.claims import Claims
from tests.unit.kube.fake import Answer, FakeTransport, json_answer, make_client, status_answer

pytestmark = pytest.mark.looptime


def claim(name: str, driver: str) -> Answer:
    allocation: Any = {"devices": {"results": [{"driver": driver}]}}
    return json_answer({"metadata": {"name": name, "namespace": "ml"}, "status": {"allocation": allocation}})


def gone(name: str) -> Answer:
    status = {"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "details": {"name": name}}
    return json_answer(status, 404)


async def test_what_was_read_is_forgotten_with_the_node_that_asked_for_it():
    """A claim that was made anew weeks later, under its old name and of another driver, was judged by the old one."""
    transport = FakeTransport(claim("a", "gpu.nvidia.com"), claim("b", "gpu.nvidia.com"), claim("a", "nic.example.com"))
    claims = Claims(make_client(transport))
    await claims.read("n1", ["ml/a"])
    await claims.read("n2", ["ml/b"])
    claims.forget_node("n1")
    assert claims.drivers == {"ml/b": ("gpu.nvidia.com",)}
    await claims.read("n1", ["ml/a"])
    assert claims.drivers["ml/a"] == ("nic.example.com",)


async def test_a_claim_that_is_gone_holds_nothing():
    claims = Claims(make_client(FakeTransport(gone("a"))))
    await claims.read("n1", ["ml/a"])
    assert claims.drivers == {"ml/a": ()}


@pytest.mark.parametrize(
    "absent",
    [Answer(404, (b"404 page not found\n",)), status_answer(404, "NotFound", "the server could not find the resource")],
    ids=["no such group", "no such version"],
)
async def test_where_claims_are_not_served_they_stay_unread_and_that_is_said_once(absent, caplog):
    claims = Claims(make_client(FakeTransport(absent, absent, claim("a", "gpu.nvidia.com"))))
    with caplog.at_level(logging.WARNING):
        await claims.read("n1", ["ml/a", "ml/b"])
        await claims.read("n1", ["ml/a"])
    assert claims.drivers == {}
    (said,) = caplog.records
    assert "1.34" in said.__dict__["needs"]
    await claims.read("n1", ["ml/a"])
    assert claims.drivers == {"ml/a": ("gpu.nvidia.com",)}


async def test_what_cannot_be_read_is_an_error():
    claims = Claims(make_client(FakeTransport(status_answer(503, "ServiceUnavailable"))))
    with pytest.raises(ServerError):
        await claims.read("n1", ["ml/a"])
    assert claims.drivers == {}
