"""A proxy on loopback before a real API server, which does to real connections what the simulator does to simulated ones.

The names of the faults are the simulator's (`tests/sim/network.py`, `tests/sim/faults.py`).
"""
