"""A rollout to watch, on this machine, in under a minute: `python -m tools.demo`.

`stage` sets up the cluster, `fleet` follows it by watches and keeps what happens, `view` draws it, `summary` tells what
was measured, `play` runs it all.
"""
