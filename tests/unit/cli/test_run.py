"""What ``run`` says when it ends by itself: one line of its log, in the log's format, and the exit code."""

import json
import logging
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result

from controller import app
from controller.cli.main import main
from controller.kube.errors import ConfigError
from controller.kube.leaderelection import LeadershipLost
from controller.server.http import ListenError

ENDS = [
    (LeadershipLost("lease driver-upgrade was not renewed in time"), 1, "leadership lost"),
    (ConfigError("kubeconfig x does not exist: name one"), 2, "controller not started"),
    (ListenError("--listen 127.0.0.1:1: taken; choose another port"), 2, "controller not started"),
]


@pytest.fixture(autouse=True)
def log_is_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def ended(monkeypatch: pytest.MonkeyPatch, error: Exception, form: str) -> Result:
    async def fails(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(app, "run", fails)
    return CliRunner().invoke(main, ["run", "--log-format", form, "--driver-namespaces", "ops"])


@pytest.mark.parametrize(("error", "code", "said"), ENDS, ids=lambda value: type(value).__name__)
def test_the_last_line_is_a_json_object_like_all_others(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
):
    answer = ended(monkeypatch, error, "json")
    assert (answer.exit_code, answer.stdout) == (code, "")
    (line,) = answer.stderr.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert (found["level"], found["msg"], found["error"]) == ("error", said, str(error))


@pytest.mark.parametrize(("error", "code", "said"), ENDS, ids=lambda value: type(value).__name__)
def test_people_read_it_as_text(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str):
    answer = ended(monkeypatch, error, "text")
    assert answer.exit_code == code
    assert f"ERRO {said}" in answer.stderr
    assert str(error) in answer.stderr


def test_a_real_start_without_a_kubeconfig_says_so_in_the_log():
    answer = CliRunner().invoke(main, ["run", "--kubeconfig", "/does/not/exist", "--log-format", "json"])
    assert answer.exit_code == 2
    assert "/does/not/exist" in json.loads(answer.stderr.splitlines()[-1])["error"]
