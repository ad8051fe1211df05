"""`tools.children`: a child that is signalled again while it ends keeps its exit status."""

import asyncio
import signal

from tools.children import signalled

CHILDREN = 60  # signalled by asyncio's own `send_signal`, some of them lose their status in nearly every run


async def _killed_and_told_to_stop() -> int:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    signalled(process, signal.SIGKILL)
    for _ in range(CHILDREN):
        signalled(process, signal.SIGTERM)
    return await process.wait()


async def test_signals_to_an_ending_child_leave_its_exit_status_to_its_waiter():
    assert {await _killed_and_told_to_stop() for _ in range(CHILDREN)} == {-signal.SIGKILL}


async def test_a_child_that_has_ended_is_left_alone():
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    signalled(process, signal.SIGKILL)
    assert process.returncode == 0
