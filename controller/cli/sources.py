"""``--source``: which kinds of custom resources hold upgrade policies, by preset, with a namespace, or from a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from msgspec.structs import replace

from controller.upgrade.sourcecheck import SourceError, check, check_distinct, check_domain, describe
from controller.upgrade.sources import FOREIGN, OWN_KIND, Source

OWN: Final = "driver-upgrade-policy"
SEED: Final = "custom-resource"
T = TypeVar("T")


def source_option(command: Callable[..., T]) -> Callable[..., T]:
    """Add ``--source``; the command gets the flags' values as ``source``, for :func:`sources_of`."""
    presets = ", ".join((OWN, SEED, *FOREIGN))
    return click.option(
        "--source",
        multiple=True,
        default=(OWN, SEED),
        show_default=True,
        metavar="NAME[=NAMESPACE]|@FILE",
        help=(
            f"Kind of custom resource that holds upgrade policies; may be repeated. One of {presets}; for the last four "
            f"with the namespace of the operator's DaemonSets (default: {FOREIGN['gpu-cluster-policy'].namespace}, "
            f"{FOREIGN['nic-cluster-policy'].namespace}), and a --label-domain of your own. "
            "@FILE: a source described in YAML or JSON. Read docs/operators.md before you name another operator's kind."
        ),
    )(command)


def sources_of(said: tuple[str, ...], seed: Source, *, domain: str, namespaces: tuple[str, ...]) -> tuple[Source, ...]:
    """Return the sources that the flags ask for.

    Args:
        said: The values of ``--source``.
        seed: The preset for the seed's kind, as its own flags made it.
        domain: ``--label-domain``.
        namespaces: ``--driver-namespaces``; empty where it was not given.

    Raises:
        click.UsageError: One cannot be used; says which, why, and the remedy. Exit code 2.
    """
    try:
        found = {f"--source {text}": _source(text, seed) for text in said}
        check_distinct(found)
        check_domain(found, domain)
        _check_namespaces(found, namespaces)
    except SourceError as error:
        raise click.UsageError(str(error)) from error
    return tuple(found.values())


def _source(text: str, seed: Source) -> Source:
    if text.startswith("@"):
        return _read(Path(text[1:]))
    name, given, namespace = text.partition("=")
    presets: Mapping[str, Source] = {OWN: OWN_KIND, SEED: seed, **FOREIGN}
    if name not in presets:
        raise SourceError(f"--source {text}: there is no {name!r}; there are {', '.join(presets)}, and @FILE")
    source = replace(presets[name], namespace=namespace) if given else presets[name]
    try:
        check(source)
    except SourceError as error:
        raise SourceError(f"--source {text}: {error}") from error
    return source


def _read(path: Path) -> Source:
    import yaml  # noqa: PLC0415 - only where it is asked for

    try:
        said: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return describe(said)
    except OSError as error:
        raise SourceError(f"--source @{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"--source @{path}: is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    except SourceError as error:
        raise SourceError(f"--source @{path}: {error}") from error


def _check_namespaces(sources: Mapping[str, Source], namespaces: tuple[str, ...]) -> None:
    for name, source in sources.items():
        if namespaces and source.namespace and source.namespace not in namespaces:
            raise SourceError(
                f"{name}: the driver's DaemonSets are looked for in namespace {source.namespace}, which --driver-namespaces "
                f"({','.join(namespaces)}) leaves out: add it there, or give the right one as NAME=NAMESPACE"
            )
