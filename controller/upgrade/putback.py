"""Give back a node that is no longer ours to upgrade, without losing a cordon or half a driver (design, section 6).

A node with our record is put back when its policy is disabled, gone or no longer selects it, when a person relabelled it
done while we held the cordon, and when its DaemonSet has not wanted it for two minutes.
"""

from msgspec.structs import replace

from controller.api.policy import UpgradePolicySpec
from controller.upgrade.actions import Decision
from controller.upgrade.cordon import release
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Record
from controller.upgrade.snapshot import NodeView
from controller.upgrade.sources import OWN_KIND
from controller.upgrade.states import FINISHING, State
from controller.upgrade.turn import Turn

GONE_SECONDS = 120.0


def stand_in(record: Record) -> Policy:
    """The policy by which a node is finished whose own is gone: default time-outs, no drain, no validation."""
    return Policy(OWN_KIND, record.namespace, record.policy.partition("/")[2], spec=UpgradePolicySpec(auto_upgrade=True))


def is_finished_first(view: NodeView, record: Record) -> bool:
    """Whether the old driver is already going or gone, and its DaemonSet will bring the new one."""
    if record.state not in FINISHING or not view.is_wanted:
        return False
    if view.waits_for_safe_load and not record.replace:
        return False
    return all(p.terminating for p in view.to_replace)


def put_back(turn: Turn, why: str) -> Decision:
    """Drop the claim, lift the cordon if it was ours to lift, take our marks off. Failed nodes stay as they are."""
    if turn.record.state is State.UPGRADE_FAILED and turn.view.node.unschedulable:
        return turn.wait(Reason.FAILED, f"{why}; uncordon the node to end its failed upgrade")
    return turn.write(None, release(turn.view), message=f"node put back: {why}")


def daemonset_gone(turn: Turn) -> Decision | None:
    """Record since when no DaemonSet wants the node, and put it back after two minutes; None where one does."""
    record, wanted = turn.record, turn.view.is_wanted
    if turn.view.written is None:
        return None
    if wanted:
        return turn.write(replace(record, gone=0.0)) if record.gone else None
    if not record.gone:
        return turn.write(replace(record, gone=round(turn.now, 3)))
    until = turn.view.today(record.gone) + GONE_SECONDS
    if turn.now >= until:
        return put_back(turn, "no driver DaemonSet wants it any more")
    message = "no driver DaemonSet wants this node: it will be put back"
    return turn.wait(Reason.DAEMONSET_GONE, message, deadline=until)
