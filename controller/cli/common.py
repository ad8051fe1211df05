"""What the commands share: flags, the connection, errors in one line, output for programs, times for people.

Every command but ``run`` reads the cluster itself, so all work while the controller is down. Exit codes: 0 success; 1 an
error at run time; 2 wrong usage or configuration; 143 where SIGTERM ended ``wait-for-safe-load``.
"""

import asyncio
import difflib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click
import msgspec

from controller import __version__
from controller.api import selectors
from controller.cli.sources import source_option, sources_of
from controller.kube import config
from controller.kube.client import Client
from controller.kube.errors import ApiError, ConfigError, Forbidden, KubeError, NetworkError, Unauthorized
from controller.kube.transport import AiohttpTransport
from controller.operate.options import Options
from controller.upgrade.keys import DEFAULT_DOMAIN
from controller.upgrade.sources import DRIVER_NAME, seed_kind

USAGE_ERROR: Final = 2
MAX_DOMAIN: Final = 253
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))

P = ParamSpec("P")
T = TypeVar("T")


def names(text: str, legal: re.Pattern[str], rule: str) -> tuple[str, ...]:
    """Split a comma-separated flag and hold each part to a pattern.

    Raises:
        click.BadParameter: One is not legal; says the rule.
    """
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in found:
        if not legal.fullmatch(name):
            raise click.BadParameter(f"{name!r} is no {rule}")
    return found


def check_domain(_: click.Context, __: click.Parameter, value: str) -> str:
    """Hold ``--label-domain`` to the rules of a label's prefix."""
    if not _DOMAIN.fullmatch(value) or len(value) > MAX_DOMAIN:
        raise click.BadParameter(f"{value!r} is not a DNS name such as {DEFAULT_DOMAIN}")
    return value


def check_drivers(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Split and check a list of drivers."""
    return names(value, DRIVER_NAME, "driver name: lower-case letters, digits and '-', at most 13")


def check_driver(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """Check one driver; none is empty."""
    found = check_drivers(ctx, param, value or "")
    if len(found) > 1:
        raise click.BadParameter("name one driver")
    return found[0] if found else ""


def check_namespaces(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Split and check a list of namespaces."""
    return names(value, _NAMESPACE, "namespace: lower-case letters, digits and '-', at most 63")


def check_pod_selector(_: click.Context, __: click.Parameter, value: str) -> str:
    """Check a selector that must choose something."""
    try:
        empty = selectors.parse(value).empty
    except selectors.SelectorError as error:
        raise click.BadParameter(str(error)) from error
    if empty:
        raise click.BadParameter("must not be empty: say which labels the driver pods carry")
    return value


def connection_options(command: Callable[P, T]) -> Callable[P, T]:
    """Add ``--kubeconfig`` and ``--context``, as kubectl has them."""
    command = click.option("--context", help="Kubeconfig context. Default: the current one.")(command)
    return click.option(
        "--kubeconfig",
        type=click.Path(),
        help="Kubeconfig file. Default: $KUBECONFIG, the pod's service account, ~/.kube/config.",
    )(command)


def domain_option(command: Callable[P, T]) -> Callable[P, T]:
    """Add ``--label-domain``."""
    return click.option(
        "--label-domain",
        default=DEFAULT_DOMAIN,
        show_default=True,
        callback=check_domain,
        help="Prefix of our labels and annotations.",
    )(command)


def seed_options(command: Callable[P, T]) -> Callable[P, T]:
    """Add what policies of kind CustomResource do not say."""
    command = click.option(
        "--seed-pod-selector",
        default="app=nvidia-driver-daemonset",
        show_default=True,
        callback=check_pod_selector,
        help="Driver pods of policies of kind CustomResource.",
    )(command)
    return click.option(
        "--seed-driver",
        default="gpu",
        show_default=True,
        callback=check_driver,
        help="Driver of policies of kind CustomResource, which name none.",
    )(command)


def driver_option(command: Callable[P, T]) -> Callable[P, T]:
    """Add ``--driver``."""
    return click.option("--driver", callback=check_driver, help="Driver name. Needed only where there are several.")(command)


def output_option(*more: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Add ``-o json|yaml`` and what else a command can print."""
    return click.option("-o", "--output", type=click.Choice(["json", "yaml", *more]), help="Print for programs, or more.")


@dataclass(frozen=True)
class Target:
    """Which cluster, and which of its drivers: the values of the flags that commands share."""

    kubeconfig: str | None
    context: str | None
    options: Options


def target_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add the flags of cluster and drivers; the command gets them as ``target``."""

    def collect(
        *args: Any,
        kubeconfig: str | None,
        context: str | None,
        driver_namespaces: tuple[str, ...],
        label_domain: str,
        source: tuple[str, ...],
        seed_driver: str,
        seed_pod_selector: str,
        **rest: Any,
    ) -> T:
        seed = seed_kind(seed_driver, seed_pod_selector)
        sources = sources_of(source, seed, domain=label_domain, namespaces=driver_namespaces)
        options = Options(driver_namespaces=driver_namespaces, sources=sources, domain=label_domain)
        return command(*args, target=Target(kubeconfig, context, options), **rest)

    collect.__doc__ = command.__doc__
    collect.__name__ = command.__name__
    vars(collect)["__click_params__"] = vars(command).get("__click_params__", [])
    namespaces = click.option(
        "-n",
        "--driver-namespaces",
        default="",
        callback=check_namespaces,
        help="Comma-separated namespaces of drivers and policies. Default: those that have a policy.",
    )
    return connection_options(namespaces(domain_option(source_option(seed_options(collect)))))


class CommandError(click.ClickException):
    """An error at run time: one line that says what to do. Exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print it, as every message of ours, after the program's name."""
        click.echo(f"driver-upgrade: {self.message}", err=True, file=file)


class ConfigurationError(CommandError):
    """No usable configuration. Exit code 2."""

    exit_code = USAGE_ERROR


@asynccontextmanager
async def connect(kubeconfig: str | None, context: str | None) -> AsyncIterator[Client]:
    """Yield a client of the cluster that the flags name.

    Raises:
        ConfigError: No usable kubeconfig.
    """
    connection = await config.load(kubeconfig, context)
    async with AiohttpTransport(connection, user_agent=f"driver-upgrade-cli/{__version__}") as transport:
        yield Client(transport)


def execute(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; what the cluster refuses becomes one line with the remedy.

    Raises:
        CommandError: Anything that went wrong on purpose.
    """
    try:
        return asyncio.run(work)
    except ConfigError as error:
        raise ConfigurationError(str(error)) from error
    except KubeError as error:
        raise CommandError(explain_error(error)) from error


def with_client(target: Target, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run work with a client of the target's cluster. What the packages below log for a controller is not shown."""
    logging.getLogger().addHandler(logging.NullHandler())

    async def connected() -> T:
        async with connect(target.kubeconfig, target.context) as client:
            return await work(client)

    return execute(connected())


def explain_error(error: KubeError) -> str:
    """Say what the API server's refusal means for the person at the keyboard."""
    match error:
        case Forbidden():
            return f"not allowed: {error.message}: ask for this permission, or use another --context"
        case Unauthorized():
            return f"the API server refuses the credentials: {error.message}: log in again, or use another --context"
        case NetworkError():
            return f"no answer from the API server: {error}: check --kubeconfig, --context and your network"
        case ApiError():
            return f"the API server refused: {error}"
        case _:
            return str(error)


def suggest(wanted: str, known: Iterable[str]) -> str:
    """Return a half sentence with the names that come close; empty where none does."""
    close = difflib.get_close_matches(wanted, list(known), n=3, cutoff=0.6)
    return f": did you mean {' or '.join(close)}?" if close else ""


def machine(value: Any, form: str) -> str:
    """Return values as JSON or YAML text."""
    plain = msgspec.to_builtins(value)
    if form == "json":
        return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()
    import yaml  # noqa: PLC0415 - only where it is asked for

    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)).rstrip("\n")


def clock(seconds: float, now: float) -> str:
    """Return a time as a person at this machine reads it, with the date where it is a day or more away."""
    form = "%H:%M:%S" if abs(seconds - now) < _UNITS[0][0] else "%Y-%m-%d %H:%M"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime(form)


def duration(seconds: float) -> str:
    """Return a span in its two largest units: ``2h5m``."""
    left, parts = max(0, round(seconds)), list[str]()
    for size, unit in _UNITS:
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
        if len(parts) == 2:  # noqa: PLR2004
            break
    return "".join(parts)


def fail(errors: Sequence[str]) -> NoReturn:
    """End with all the errors of a command that works on several things.

    Raises:
        CommandError: Always.
    """
    raise CommandError("\ndriver-upgrade: ".join(errors))
