"""A source that a person described or chose, held to what the controller can use; every error names field and remedy."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from controller.api import selectors
from controller.api.policy import UpgradePolicySpec
from controller.upgrade.sources import DRIVER_NAME, FOREIGN, Source, overlay

_DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KIND: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_PATH: Final = re.compile(r"spec(\.[A-Za-z][A-Za-z0-9]*)+")


class SourceError(ValueError):
    """A source that cannot be used. The message names the field and says what would be right."""


def describe(said: Any) -> Source:
    """Return the source that a file describes: one of :data:`FOREIGN` with what differs, or all of it.

    Raises:
        SourceError: A field is missing, unknown or wrong.
    """
    if not isinstance(said, Mapping):
        raise SourceError("must hold one object: the fields of a source")
    fields = dict(said)
    preset = fields.pop("preset", None)
    if preset is not None and preset not in FOREIGN:
        raise SourceError(f"preset: {preset!r} is none of {', '.join(FOREIGN)}")
    if "ours" in fields:
        raise SourceError("ours: no other kind is; leave it out")
    base = msgspec.to_builtins(FOREIGN[preset]) if preset else {}
    for name in ("defaults", "overrides"):
        if isinstance(fields.get(name), Mapping):
            fields[name] = overlay(base.get(name, {}), fields[name])
    try:
        source = msgspec.convert({**base, **fields}, Source)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise SourceError(f"{path.strip('.`') or 'source'}: {message}") from error
    check(source)
    return source


def check(source: Source) -> None:
    """Hold a source to what the controller can use.

    Raises:
        SourceError: The first field that is wrong, and what would be right.
    """
    for field, message in _faults(source):
        raise SourceError(f"{field}: {message}")


def _faults(source: Source) -> Iterator[tuple[str, str]]:
    yield from _bad_names(source)
    for field in ("path", "nodeSelector", "nodeLabels", "fallbackWhen"):
        path = getattr(source, _snake(field))
        if (path or field == "path") and not _PATH.fullmatch(path):
            yield field, f"{path!r} must be a dotted path that begins with spec., such as spec.driver.upgradePolicy"
    if source.node_selector and source.node_labels:
        yield "nodeLabels", "give it or nodeSelector, not both"
    if source.namespaced and source.namespace:
        yield "namespace", "only cluster-scoped kinds take one (namespaced: false); others count where they are"
    if not source.namespaced and not source.namespace:
        yield "namespace", "is required for a cluster-scoped kind: the namespace of the driver's DaemonSets"
    if source.namespace and ("." in source.namespace or not _DNS_NAME.fullmatch(source.namespace)):
        yield "namespace", f"{source.namespace!r} is no legal namespace"
    yield from _bad_fields(source)


def _bad_names(source: Source) -> Iterator[tuple[str, str]]:
    patterns = {"group": _DNS_NAME, "version": _DNS_NAME, "plural": _DNS_NAME, "kind": _KIND}
    for field, pattern in patterns.items():
        if not pattern.fullmatch(getattr(source, field)):
            yield field, f"{getattr(source, field)!r} is no legal {field} of an API resource"
    if source.driver and not DRIVER_NAME.fullmatch(source.driver):
        yield "driver", f"{source.driver!r} is no legal driver name: lower-case letters, digits and '-', at most 13"
    for field in ("podSelector", "drainExempt"):
        try:
            selectors.parse(getattr(source, _snake(field)))
        except selectors.SelectorError as error:
            yield field, str(error)


def _bad_fields(source: Source) -> Iterator[tuple[str, str]]:
    for name, block in (("defaults", source.defaults), ("overrides", source.overrides)):
        if "autoUpgrade" in block:
            yield f"{name}.autoUpgrade", "use enabled"
        for field in _unknown(block, UpgradePolicySpec):
            yield f"{name}.{field}", "is no field of upgradePolicy (docs/policy.md lists them)"
        try:
            msgspec.convert(block, UpgradePolicySpec)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            yield f"{name}{path.rstrip('`')}", message
    known = {f.encode_name for f in msgspec.structs.fields(UpgradePolicySpec)}
    for alias, field in source.aliases.items():
        if field not in known:
            yield f"aliases.{alias}", f"{field!r} is no field of upgradePolicy (docs/policy.md lists them)"


def _unknown(block: Mapping[str, Any], of: type[msgspec.Struct]) -> Iterator[str]:
    known = {f.encode_name: f.type for f in msgspec.structs.fields(of)}
    for name, value in block.items():
        kind = known.get(name)
        if kind is None:
            yield str(name)
        elif isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from (f"{name}.{inner}" for inner in _unknown(value, kind))


def _snake(camel: str) -> str:
    return re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), camel)


def check_domain(sources: Mapping[str, Source], domain: str) -> None:
    """Refuse a label domain whose state labels would be removed as fast as they are written.

    Args:
        sources: By the name under which each was asked for.
        domain: The label domain.

    Raises:
        SourceError: Says which source, why, and what to give instead.
    """
    for name, source in sources.items():
        if source.stripped_domain == domain:
            raise SourceError(
                f"{name} needs a --label-domain other than {domain}: with autoUpgrade false the operator of {source.kind} "
                f"removes {domain}/{source.driver}-driver-upgrade-state from all nodes as soon as it appears. "
                "Give a domain of your own, such as --label-domain driver-upgrade.example.com (docs/operators.md)"
            )


def check_distinct(sources: Mapping[str, Source]) -> None:
    """Refuse the same kind twice: records name a policy by kind, namespace and name.

    Raises:
        SourceError: Names both.
    """
    seen: dict[str, str] = {}
    for name, source in sources.items():
        if source.kind in seen:
            raise SourceError(f"{name} and {seen[source.kind]} are both of kind {source.kind}: give one of them")
        seen[source.kind] = name
