"""A user's work: asked to end, it saves for a while, and writes down what it was allowed to do.

The file /diary/$NAME gets one line for each event; `saved` is there only if the grace period was granted.
"""

import os
import signal
import sys
import time
from pathlib import Path

SAVING_SECONDS = 4.0
diary = Path("/diary", os.environ["NAME"])


def write(text: str) -> None:
    """Appends a line."""
    with diary.open("a") as file:
        file.write(text + "\n")


def end(*_: object) -> None:
    """What takes its time."""
    write("asked to end")
    time.sleep(SAVING_SECONDS)
    write("saved")
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
write("began")
signal.pause()
