"""Stands for kube-proxy: `python -m tools.e2e.forward ADDRESS PORT TARGET-PORT` hands connections on to loopback.

So pods reach the API server by the address of its service, as everywhere, with nothing told to them.
"""

import asyncio
import sys
from contextlib import suppress

_CHUNK = 65536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    with suppress(ConnectionError, RuntimeError):
        writer.close()


async def serve(address: str, port: int, target: int) -> None:
    """Serves until killed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))

    async with await asyncio.start_server(connected, address, port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
