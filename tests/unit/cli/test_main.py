"""The command as a whole: its help, its errors, and what it does not import."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from controller.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[3]
HEAVY = ("rich", "prometheus_client", "controller.server.http", "kubernetes_asyncio", "controller.app")


def invoke(*words: str, **environment: str):
    return CliRunner().invoke(main, words, env={"KUBECONFIG": "/does/not/exist", **environment})


def imported_by(*words: str) -> set[str]:
    """The modules that a command has imported by the time its help is printed."""
    code = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from controller.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(answer.stderr.split())


def test_help_lists_every_command_with_its_line():
    answer = invoke("--help")
    assert answer.exit_code == 0
    shown = " ".join(answer.output.split())
    assert all(f"{name} {line}" in shown for name, (_, line) in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(name: str):
    answer = invoke(name, "-h")
    assert answer.exit_code == 0, answer.output
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name


def test_the_init_container_pays_for_nothing_that_it_does_not_need():
    assert not imported_by("wait-for-safe-load", "--help").intersection(HEAVY)


def test_help_imports_no_command():
    assert not {m for m in imported_by("--help") if m.startswith("controller.cli.")} - {"controller.cli.main"}


@pytest.mark.parametrize("words", [("status",), ("explain", "n1"), ("retry", "n1"), ("pause", "gpu"), ("plan",)])
def test_a_missing_kubeconfig_is_a_configuration_error_in_one_line(words: tuple[str, ...]):
    answer = invoke(*words)
    assert answer.exit_code == 2
    assert answer.output == (
        "driver-upgrade: kubeconfig /does/not/exist does not exist: name one with --kubeconfig or $KUBECONFIG\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("statu",), "No such command 'statu': did you mean status?"),
        (("explain",), "Missing argument 'NODE'"),
        (("retry",), "Missing argument 'NODE...'"),
        (("explain", "n1", "--driver", "Not/Legal"), "is no driver name"),
        (("explain", "n1", "--driver", "gpu,ofed"), "name one driver"),
        (("status", "-n", "Not_Legal"), "is no namespace"),
        (("status", "--label-domain", "nodots"), "is not a DNS name"),
        (("status", "--watch", "-o", "json"), "leave out -o json"),
        (("wait-for-safe-load", "--node", "n1"), "Missing option '--driver'"),
        (("wait-for-safe-load", "--driver", ",", "--node", "n1"), "must not be empty"),
        (("wait-for-safe-load", "--driver", "gpu"), "Missing option '--node'"),
        (("status", "--seed-pod-selector", ""), "must not be empty"),
        (("status", "--seed-pod-selector", "a b"), "Invalid value"),
    ],
)
def test_wrong_usage_names_what_is_wrong(words: tuple[str, ...], said: str):
    answer = invoke(*words, NODE_NAME="")
    assert answer.exit_code == 2
    *_, nothing, error = answer.output.splitlines()
    assert (nothing, error.startswith("Error: ")) == ("", True)
    assert said in error


def test_the_init_container_finds_its_node_in_the_environment():
    assert "kubeconfig /does/not/exist" in invoke("wait-for-safe-load", "--driver", "gpu", NODE_NAME="n1").output
