"""The helpers that commands share."""

from datetime import UTC, datetime

import pytest

from controller.cli.common import (
    CommandError,
    ConfigurationError,
    clock,
    duration,
    execute,
    explain_error,
    machine,
    suggest,
)
from controller.kube.errors import ConfigError, Forbidden, KubeError, NetworkError, ServerError, Unauthorized
from controller.upgrade.reasons import Blocker, Reason

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (59.6, "1m"),
        (61, "1m1s"),
        (3600, "1h"),
        (3661, "1h1m"),
        (90061, "1d1h"),
        (86400 + 59, "1d59s"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("away", "form"),
    [(-3600.0, "%H:%M:%S"), (86399.0, "%H:%M:%S"), (86400.0, "%Y-%m-%d %H:%M"), (-604800.0, "%Y-%m-%d %H:%M")],
)
def test_a_time_that_is_a_day_away_or_more_has_its_date(away: float, form: str):
    then = datetime.fromtimestamp(NOW + away, UTC).astimezone()
    assert clock(NOW + away, NOW) == then.strftime(form)


def test_close_names_are_suggested_and_others_are_not():
    assert suggest("node-1x", ["node-1", "other"]) == ": did you mean node-1?"
    assert suggest("zzz", ["node-1", "other"]) == ""


def test_machine_output():
    blocker = Blocker(Reason.UNMANAGED_POD, "ns", "pod")
    assert (
        machine([blocker], "json")
        == '[\n  {\n    "reason": "UnmanagedPod",\n    "namespace": "ns",\n    "name": "pod"\n  }\n]'
    )
    assert machine([blocker], "yaml") == "- reason: UnmanagedPod\n  namespace: ns\n  name: pod"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (Forbidden(403, "Forbidden", "cannot get"), "not allowed: cannot get: ask for this permission"),
        (Unauthorized(401, "Unauthorized", "expired"), "log in again"),
        (NetworkError("refused"), "check --kubeconfig"),
        (ServerError(500, "InternalError", "broken"), "500 InternalError: broken"),
        (KubeError("other"), "other"),
    ],
)
def test_every_error_says_what_to_do(error: KubeError, remedy: str):
    assert remedy in explain_error(error)

    async def work() -> None:
        raise error

    with pytest.raises(CommandError) as raised:
        execute(work())
    assert raised.value.exit_code == 1


def test_a_configuration_error_has_an_exit_code_of_its_own():
    async def work() -> None:
        raise ConfigError("wrong file")

    with pytest.raises(ConfigurationError, match="wrong file") as raised:
        execute(work())
    assert raised.value.exit_code == 2
