"""A driver: says that it is loaded, and is there until it is asked to go."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("driver loaded", flush=True)
signal.pause()
