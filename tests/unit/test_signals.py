"""A controller that does not end when asked to: the second signal ends its process at once."""

import signal
import subprocess
import sys

import pytest

STUBBORN = """
import asyncio
from controller import app

class Stubborn:
    async def run(self):
        print("running", flush=True)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                print("stopping", flush=True)

asyncio.run(app._until_signalled(Stubborn()))
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_the_process_at_once(first, second):
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(first)
            assert process.stdout.readline() == "stopping\n"
            process.send_signal(second)
            assert process.wait(timeout=30) == 128 + second
        finally:
            process.kill()
