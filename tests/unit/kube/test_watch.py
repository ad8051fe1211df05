"""Bytes of a watch become events, however they are cut."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kube import errors
from controller.kube.resources import NODES
from controller.kube.watch import LineSplitter, Silent, decode_event, events
from tests.unit.kube.fake import HANG, Answer, bad_node, bookmark, error_event, event, node


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=20), st.data())
def test_lines_do_not_depend_on_where_the_body_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    body = b"".join(line + b"\n" for line in lines) + b"incomplete"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=10)))
    splitter = LineSplitter()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        got += splitter.feed(body[start:end])
    assert got == [line for line in lines if line]


@pytest.mark.parametrize("chunks", [[b"x" * 11], [b"x" * 6, b"x" * 5], [b"x" * 6, b"xxxxx\n"], [b"ok\n", b"x" * 11 + b"\n"]])
def test_lines_have_an_upper_bound(chunks: list[bytes]) -> None:
    splitter = LineSplitter(limit=10)
    *first, last = chunks
    for chunk in first:
        splitter.feed(chunk)
    with pytest.raises(errors.LineTooLong, match="longer than 10 bytes"):
        splitter.feed(last)


def test_a_chunk_of_many_lines_is_not_a_long_line() -> None:
    splitter = LineSplitter(limit=10)
    assert [len(splitter.feed(b"xxxxxxxxxx\n" * 100)) for _ in range(2)] == [100, 100]
    assert [splitter.feed(b"xxx\nxxx") for _ in range(3)] == [[b"xxx"], [b"xxxxxx"], [b"xxxxxx"]]


def test_objects_and_bookmarks() -> None:
    added = decode_event(event("ADDED", node("a", 7, x="y")), NODES)
    assert (added.type, added.resource_version) == ("ADDED", "7")
    assert added.object is not None
    assert added.object.labels == {"x": "y"}
    assert decode_event(bookmark(8), NODES).resource_version == "8"
    assert not decode_event(bookmark(8), NODES).initial_end
    assert decode_event(bookmark(9, end=True), NODES).initial_end


@pytest.mark.parametrize(
    "obj", [bad_node("a", 7), {"metadata": {"name": "a", "resourceVersion": "7", "labels": []}}], ids=["spec", "labels"]
)
def test_a_malformed_object_is_an_event_with_its_name(obj: object) -> None:
    found = decode_event(event("MODIFIED", obj), NODES)
    assert found.object is None
    assert found.malformed is not None
    assert (found.malformed.key, found.resource_version) == ("a", "7")
    assert "Expected" in found.malformed.error


@pytest.mark.parametrize("obj", [None, 5, "x", [], {}, {"metadata": None}, {"metadata": {"name": 5}}])
def test_an_object_without_a_name_is_malformed_too(obj: object) -> None:
    found = decode_event(event("ADDED", obj), NODES)
    assert found.malformed is not None
    assert (found.malformed.key, found.resource_version) == ("", "")


@pytest.mark.parametrize(
    "line", [b"Too many requests", b"<html>", b"{}", b'{"type":"ADDED"', b'{"type":5,"object":{}}', b"\xff"]
)
def test_what_is_not_a_watch_is_a_network_error(line: bytes) -> None:
    with pytest.raises(errors.NetworkError, match="not a watch event of nodes"):
        decode_event(line, NODES)


def test_error_events_raise() -> None:
    with pytest.raises(errors.Gone):
        decode_event(error_event(410, "Expired"), NODES)
    with pytest.raises(errors.ServerError):
        decode_event(b'{"type":"ERROR","object":"?"}', NODES)


def test_a_nest_deeper_than_the_decoder_goes_is_malformed() -> None:
    line = b'{"type":"ADDED","object":{"metadata":{"name":"a"},"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    with pytest.raises(errors.NetworkError):
        decode_event(line, NODES)


async def test_a_truncated_last_line_is_dropped() -> None:
    whole = event("ADDED", node("a", 1)) + event("ADDED", node("b", 2))

    async def collect(answer: Answer) -> list[str]:
        return [e.object.name async for e in events(answer, NODES) if e.object]

    assert await collect(Answer(200, (whole[:60], whole[60:-5]))) == ["a"]
    assert await collect(Answer(200, (whole,))) == ["a", "b"]
    assert json.loads(whole.splitlines()[1])["object"]["metadata"]["name"] == "b"


@pytest.mark.looptime
async def test_silence_is_counted_in_bytes_and_from_the_last() -> None:
    line = event("ADDED", node("a", 1))
    stream = Answer(200, (40, line[:10], 40, line[10:20], 40, line[20:], 40, b"\n", HANG))
    now, found = asyncio.get_running_loop().time, events(stream, NODES, silence=50)
    assert ((await anext(found)).resource_version, now()) == ("1", 120)
    with pytest.raises(Silent, match="silent for 50 s"):
        await anext(found)
    assert now() == 210
