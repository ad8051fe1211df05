"""From a custom resource to a resolved policy: defaults, selectors parsed, errors that name the field.

A policy that cannot be judged is kept with its errors: it grants nothing and breaks nothing under way. Where an earlier
good version is known, nodes in progress go on by that one.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from controller.api import selectors
from controller.api.policy import PolicyObject, UpgradePolicySpec
from controller.api.selectors import LabelSelector, Selector, SelectorError
from controller.upgrade.keys import DEFAULT_DOMAIN, TRUE, paused_key
from controller.upgrade.sources import DRIVER_NAME, Source, value_at
from controller.upgrade.states import State


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field, and what would be right."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Policy(msgspec.Struct, frozen=True):
    """A policy, resolved. ``key`` is what a node's record names it by."""

    source: Source
    namespace: str
    name: str
    uid: str = ""
    generation: int = 0
    created: float = 0.0
    driver: str = ""
    pods: Selector | None = None
    nodes: Selector = selectors.EVERYTHING
    spec: UpgradePolicySpec = UpgradePolicySpec()
    jobs: Selector | None = None
    deletion: Selector | None = None
    drain: Selector = selectors.EVERYTHING
    validators: Selector | None = None
    fallback: bool = False
    """Whether it only has the nodes that no other policy of the driver selects."""
    errors: tuple[FieldError, ...] = ()
    usable: bool = True
    """Whether nodes in progress can go on: the policy is valid, or an earlier version that was stands in for it."""

    @property
    def key(self) -> str:
        """``Kind/name``: with the namespace, the identity that records keep."""
        return f"{self.source.kind}/{self.name}"

    @property
    def full_name(self) -> str:
        """``Kind/namespace/name``, for people and maps."""
        return f"{self.source.kind}/{self.namespace}/{self.name}"

    @property
    def enabled(self) -> bool:
        """Whether it may act at all.

        Where autoUpgrade itself cannot be read it counts as enabled, so that nothing under way breaks. Where it can be read
        and is false, everything else is ignored, wrong or not. For foreign kinds the source decides.
        """
        switch = f"{self.source.path}.autoUpgrade."
        unread = self.source.ours and any(switch.startswith(f"{e.field}.") for e in self.errors)
        return self.spec.auto_upgrade or unread

    @property
    def paused(self) -> bool:
        """Whether new grants are held back."""
        return self.spec.paused

    @property
    def age_order(self) -> tuple[bool, float, str, str, str]:
        """Of two policies for one node the one that sorts first has it: the older, and a fallback after all others.

        A policy whose nodeSelector cannot be parsed, and never could, comes last: it must not take every node from others.
        """
        astray = not self.usable and any(
            e.field in {self.source.node_selector, self.source.node_labels} for e in self.errors
        )
        return (self.fallback, math.inf if astray else self.created, self.namespace, self.name, self.source.kind)

    @property
    def failure_threshold(self) -> int:
        """How many failed nodes of one target halt the rollout."""
        return self.spec.failure_threshold or self.spec.max_parallel_upgrades or 1

    def has_work(self, state: State) -> bool:
        """Whether nodes under way have anything to do in a state; where they have not, they go on to the next."""
        match state:
            case State.WAIT_FOR_JOBS_REQUIRED:
                return self.jobs is not None
            case State.POD_DELETION_REQUIRED:
                return self.deletion is not None or bool(self.spec.pod_deletion.resource_names)
            case State.DRAIN_REQUIRED:
                return self.spec.drain.enable
            case State.VALIDATION_REQUIRED:
                return self.validators is not None
        return True

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is among its nodes."""
        return self.nodes.matches(labels)


def full_name(source: Source, obj: PolicyObject) -> str:
    """Return :attr:`Policy.full_name` of an object. A cluster-scoped one counts in its source's namespace."""
    return f"{source.kind}/{obj.namespace or source.namespace}/{obj.name}"


_IN_WORDS: Final[Mapping[str, str]] = {
    "max_unavailable": "must be a whole number of nodes, 0 or more, or a percentage from 0% to 100%, such as 25%",
    "pod_deletion": "must be the name of a resource, such as nvidia.com/gpu; * stands for anything, but not at the start",
}
"""What fields with a pattern must be. The schemas of our kinds say so as well; those of other operators may not."""


class _Errors(list[FieldError]):
    def add(self, field: str, message: str) -> None:
        self.append(FieldError(field, message))


def resolve(obj: PolicyObject, source: Source, *, domain: str = DEFAULT_DOMAIN, last: Policy | None = None) -> Policy:
    """Return the policy that an object states.

    Args:
        obj: The custom resource.
        source: Its kind and presets.
        domain: The label domain, for the annotation that pauses.
        last: The last valid version of the same object, which stands in for a broken one.
    """
    errors = _Errors()
    root = {"spec": obj.spec or {}}
    beside = _dig(root, source.beside, errors)
    spec = _spec(source.fields(_dig(root, source.path, errors)), source, errors)
    if not source.ours:
        spec = replace(spec, auto_upgrade=not source.is_off(root))
    if obj.annotations.get(paused_key(domain)) == TRUE:
        spec = replace(spec, paused=True)
    meta = obj.metadata
    policy = Policy(
        source=source,
        namespace=meta.namespace or source.namespace,
        name=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        created=meta.creation_timestamp.timestamp() if meta.creation_timestamp else 0.0,
        driver=_driver_name(beside, source, meta.name, f"{source.beside}.name", errors),
        pods=_pod_selector(beside, source, f"{source.beside}.podSelector", errors),
        nodes=_nodes(root, source, errors),
        spec=spec,
        fallback=source.is_fallback(root),
        **_selectors(spec, source, errors),
    )
    return _with_errors(policy, tuple(errors), last)


def _with_errors(policy: Policy, errors: tuple[FieldError, ...], last: Policy | None) -> Policy:
    if not errors:
        return policy
    broken = replace(policy, errors=errors, usable=False)
    if broken.enabled and last is not None and last.uid == policy.uid:
        return replace(last, generation=policy.generation, errors=errors)
    return broken


def _dig(root: Mapping[str, Any], path: str, errors: _Errors) -> Mapping[str, Any]:
    found: Any = root
    parts = path.split(".")
    for depth, part in enumerate(parts, 1):
        found = found.get(part)
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            field = ".".join(parts[:depth])
            if not any(e.field == field for e in errors):
                errors.add(field, f"must be an object, not {type(found).__name__}")
            return {}
    return found  # type: ignore[no-any-return]


def _spec(block: Mapping[str, Any], source: Source, errors: _Errors) -> UpgradePolicySpec:
    """Convert field by field, so that every wrong field is named and the others keep their values."""
    good: dict[str, Any] = {}
    for field in msgspec.structs.fields(UpgradePolicySpec):
        if block.get(field.encode_name) is None or (field.name == "auto_upgrade" and not source.ours):
            continue
        try:
            good[field.name] = msgspec.convert(block[field.encode_name], field.type)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            words = _IN_WORDS.get(field.name, message) if "matching regex" in message else message
            errors.add(f"{source.path}.{source.theirs(field.encode_name)}{path.rstrip('`')}", words)
    return UpgradePolicySpec(**good)


def _driver_name(block: Mapping[str, Any], source: Source, name: str, field: str, errors: _Errors) -> str:
    driver = source.driver or block.get("name") or name
    if not isinstance(driver, str) or not DRIVER_NAME.fullmatch(driver):
        errors.add(
            field,
            f"{driver!r} is no legal driver name: lower-case letters, digits and '-', at most 13"
            + ("" if block.get("name") else "; it was taken from metadata.name, so set it here"),
        )
        return ""
    return driver


def _pod_selector(block: Mapping[str, Any], source: Source, field: str, errors: _Errors) -> Selector | None:
    if source.pod_selector:
        return selectors.parse(source.pod_selector)
    selector = _label_selector(block.get("podSelector"), field, errors)
    if selector.empty and not any(e.field.startswith(field) for e in errors):
        errors.add(field, "is required and must not be empty: say which labels the driver pods carry")
    return selector if not selector.empty else None


def _nodes(root: Mapping[str, Any], source: Source, errors: _Errors) -> Selector:
    if source.node_labels:
        labels = value_at(root, source.node_labels)
        return _label_selector(None if labels is None else {"matchLabels": labels}, source.node_labels, errors)
    if source.node_selector:
        return _label_selector(value_at(root, source.node_selector), source.node_selector, errors)
    return selectors.EVERYTHING


def _label_selector(block: Any, field: str, errors: _Errors) -> Selector:
    if block is None:
        return selectors.EVERYTHING
    try:
        return selectors.from_label_selector(msgspec.convert(block, LabelSelector))
    except (SelectorError, msgspec.ValidationError) as error:
        errors.add(field, str(error))
        return selectors.EVERYTHING


def _selectors(spec: UpgradePolicySpec, source: Source, errors: _Errors) -> dict[str, Any]:
    texts = {
        "jobs": ("waitForCompletion", spec.wait_for_completion.pod_selector),
        "deletion": ("podDeletion", spec.pod_deletion.pod_selector),
        "drain": ("drain", spec.drain.pod_selector),
        "validators": ("validation", spec.validation.pod_selector),
    }
    found: dict[str, Any] = {}
    for name, (block, text) in texts.items():
        try:
            parsed = selectors.parse(text)
        except SelectorError as error:
            errors.add(f"{source.path}.{source.theirs(block)}.podSelector", str(error))
            parsed = selectors.EVERYTHING
        found[name] = parsed if name == "drain" or not parsed.empty else None
    exempt = selectors.parse(source.drain_exempt)
    found["drain"] = Selector((*found["drain"].requirements, *exempt.requirements))
    return found
