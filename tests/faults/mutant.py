"""A controller with a defect, as a process, for the checker to catch: `python -m tests.faults.mutant NAME run …`."""

import sys

from controller.cli import main
from tests.faults.defects import edits
from tests.sim.mutants import swapped

if __name__ == "__main__":
    with swapped(edits(sys.argv.pop(1))):
        main()
