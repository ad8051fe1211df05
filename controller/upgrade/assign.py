"""Which policy has which node (design, section 2): the record's while in progress, else the oldest that selects it."""

from collections.abc import Iterable

from controller.api.node import Node
from controller.upgrade.keys import Keys
from controller.upgrade.policy import Policy
from controller.upgrade.record import Record, decode_record
from controller.upgrade.snapshot import Released


def assign(node: Node, keys: Keys, policies: Iterable[Policy]) -> tuple[Policy | None, Released | None]:
    """Return the policy that has the node for one driver, or why one with our record has none any more.

    Args:
        node: The node.
        keys: The driver's keys.
        policies: The driver's policies, in :attr:`~controller.upgrade.policy.Policy.age_order`.
    """
    known = list(policies)
    record = decode_record(node.annotations.get(keys.record))
    if record is not None and record.node not in {"", node.uid}:
        record = None
    if record is not None and record.in_progress:
        return _recorded(node, record, known)
    for policy in known:
        if policy.enabled and policy.selects(node.labels):
            return policy, None
    return None, _why_released(record, known)


def _recorded(node: Node, record: Record, known: list[Policy]) -> tuple[Policy | None, Released | None]:
    named = next((p for p in known if (p.key, p.namespace) == (record.policy, record.namespace)), None)
    if named is not None and named.enabled and named.selects(node.labels):
        return named, None
    if not record.policy:
        chosen = next((p for p in known if p.enabled and p.selects(node.labels)), None)
        return chosen, None if chosen else Released.GONE
    return None, _why_released(record, known)


def _why_released(record: Record | None, known: list[Policy]) -> Released | None:
    if record is None:
        return None
    named = next((p for p in known if (p.key, p.namespace) == (record.policy, record.namespace)), None)
    if named is None:
        return Released.GONE
    return Released.UNSELECTED if named.enabled else Released.DISABLED


def contenders(node: Node, policies: Iterable[Policy]) -> list[Policy]:
    """Return every enabled policy that selects the node, the one that has it first."""
    return [p for p in policies if p.enabled and p.selects(node.labels)]
