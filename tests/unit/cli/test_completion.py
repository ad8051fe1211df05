"""Shell completion: the script that docs/cli.md has people source, and what it offers."""

import os
import subprocess
import sys

import pytest

from controller.cli.main import COMMANDS

SHELLS = {"bash": "complete -o nosort -F", "zsh": "#compdef driver-upgrade", "fish": "complete --no-files --command"}


def completing(how: str, *words: str) -> list[str]:
    """What the command answers its completion script, which hands it the words typed so far."""
    environment = {"_DRIVER_UPGRADE_COMPLETE": how, "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    program = "from controller.cli.main import main; main(prog_name='driver-upgrade')"
    command = [sys.executable, "-c", program]
    answer = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()


def offered(*words: str) -> set[str]:
    return {line.partition(",")[2] for line in completing("bash_complete", "driver-upgrade", *words)}


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script(shell: str):
    text = "\n".join(completing(f"{shell}_source", ""))
    assert SHELLS[shell] in text
    assert f"_DRIVER_UPGRADE_COMPLETE={shell}_complete" in text


def test_the_commands_are_offered():
    assert offered("") == set(COMMANDS)
    assert offered("wa") == {"wait-for-safe-load"}


def test_flags_and_their_values_are_offered():
    assert {"--driver-namespaces", "--driver"} <= offered("explain", "--dr")
    assert offered("explain", "-o", "") == {"json", "yaml", "wide"}
