"""Whether the machine is quiet enough for a benchmark's figures to be believed."""

import os
import subprocess

from tools.controlplane.terminal import Reporter

_MANAGER = "kube-controller-manager"


def look_around(report: Reporter) -> None:
    """Says what is in the way, or that nothing is."""
    ps = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=False)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if others := other_control_planes(ps.stdout):
        pids = ", ".join(map(str, others))
        report.line(f"Warning: another control plane runs here (process {pids}): do not believe these figures")
    elif load > cores / 2:
        report.line(f"Warning: the machine is busy (load {load:.1f} on {cores} cores): do not believe these figures")
    else:
        report.line(f"No other control plane runs here; load {load:.1f} on {cores} cores")


def other_control_planes(listing: str) -> list[int]:
    """Process ids of controller-managers in the output of `ps -A -ww -o pid=,args=`; one more doubles everything."""
    rows = (line.split(maxsplit=1) for line in listing.splitlines())
    return [int(row[0]) for row in rows if len(row) > 1 and _is_controller_manager(row[1].split()[:2])]


def _is_controller_manager(command: list[str]) -> bool:
    """Either a program of that name, or one that plays several and is told so by its first argument."""
    return command[0].endswith(_MANAGER) or command[1:] == [_MANAGER]
