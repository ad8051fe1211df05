"""Processes that we start: none outlives us, and none is reaped by anyone but its waiter.

asyncio learns how a child ended from a thread of its own that waits for it. `subprocess.Popen.send_signal`, which
asyncio's transports call, looks first whether the child has ended, and so takes its exit status away from that thread when
it has just ended: asyncio then tells 255 for a child that ended well. It happens when a child is signalled twice within
a moment, as by `kill` and a `stop` that follows. `signalled` only signals.
"""

import asyncio
import ctypes
import os
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills this process when the thread that started it ends (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:  # it ended before the call above
            os.kill(os.getpid(), signal.SIGKILL)


def signalled(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Sends a signal to a child of asyncio's, unless it has ended; its exit status stays for who waits for it."""
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it has ended, and the loop is about to hear of it
            os.kill(process.pid, number)
