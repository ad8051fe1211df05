"""What the proxy does to the lines of a watch on their way."""

from collections.abc import AsyncIterator

import aiohttp
import orjson

INITIAL_END = "k8s.io/initial-events-end"


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, of any length, with their ends."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"


def is_bookmark(line: bytes) -> bool:
    """Whether it is a bookmark that nobody would miss: not the one that ends the initial state."""
    event = orjson.loads(line)
    meta = event["object"].get("metadata", {})
    return event["type"] == "BOOKMARK" and INITIAL_END not in (meta.get("annotations") or {})


def coalesced(held: list[bytes]) -> list[bytes]:
    """Of the events on each object only the last, as whoever lists again instead of watching sees it."""
    first: dict[str, str] = {}
    last: dict[str, tuple[str, bytes]] = {}
    others: list[bytes] = []
    for line in held:
        event = orjson.loads(line)
        meta = event["object"].get("metadata", {})
        if event["type"] not in {"ADDED", "MODIFIED", "DELETED"}:
            others.append(line)
            continue
        key = f"{meta.get('namespace', '')}/{meta['name']}"
        first.setdefault(key, event["type"])
        last.pop(key, None)
        last[key] = (event["type"], line)
    return [line for key in last if (line := _merged(first[key], *last[key]))] + others


def _merged(first: str, last: str, line: bytes) -> bytes:
    """The one event that stands for all between."""
    if last == "DELETED":
        return b"" if first == "ADDED" else line
    kind = "ADDED" if first == "ADDED" else "MODIFIED"
    return orjson.dumps({**orjson.loads(line), "type": kind}) + b"\n"
