"""Whether a driver pod is current: three streams without an order, and none of them may cost a drain by lagging."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.meta import ObjectMeta, OwnerReference
from controller.api.pod import Pod
from controller.api.workloads import ControllerRevision
from controller.upgrade.revision import (
    DriverSet,
    Revisions,
    Standing,
    needs_list,
    owner_of,
    revisions_of,
    split_target,
    standing,
)
from controller.upgrade.states import State
from tests.unit.upgrade.builders import at, daemonset, driver_pod, driver_set, orphan, pod

S = Standing


def revision(name: str, number: int, *, owner: str = "ds", pod_hash: str | None = "") -> ControllerRevision:
    labels = {} if pod_hash is None else {"controller-revision-hash": pod_hash or name.rpartition("-")[2]}
    owners = (OwnerReference(api_version="apps/v1", kind="DaemonSet", uid=owner, controller=True),) if owner else ()
    return ControllerRevision(
        metadata=ObjectMeta(name=name, namespace="ops", uid=name, labels=labels, owner_references=owners), revision=number
    )


def test_revisions_are_those_the_daemonset_controls_not_those_that_share_its_prefix():
    """P7: ``drv`` and ``drv-x`` share labels, and one name is the other's prefix."""
    every = [
        revision("drv-aaa", 1, owner="ds"),
        revision("drv-bbb", 2, owner="ds"),
        revision("drv-x-ccc", 9, owner="ds-x"),
        revision("drv-ddd", 7, owner=""),
        revision("drv-eee", 8, pod_hash=None),
    ]
    assert revisions_of("ds", every).known == {"aaa": 1, "bbb": 2}
    assert revisions_of("ds-x", every).newest == ("ccc", 9)
    assert revisions_of("ds-y", every).newest is None


def test_absent_is_what_a_list_proved_and_no_revision_brought_since():
    found = revisions_of("ds", [revision("drv-aaa", 1)], frozenset({"aaa", "zzz"}))
    assert found.absent == {"zzz"}


@pytest.mark.parametrize(
    ("situation", "of", "sets", "granted", "judged"),
    [
        ("newest", driver_pod("p", 2), (driver_set(),), "", S.CURRENT),
        ("older", driver_pod("p", 1), (driver_set(),), "", S.OUTDATED),
        ("unknown hash", driver_pod("p", 3), (driver_set(),), "", S.UNSETTLED),
        ("hash proved absent", driver_pod("p", 3), (driver_set(absent={"hash3"}),), "", S.OUTDATED),
        ("another hash proved absent", driver_pod("p", 3), (driver_set(absent={"hash4"}),), "", S.UNSETTLED),
        ("no hash", pod("p", owner=("apps/v1", "DaemonSet", "ds")), (driver_set(),), "", S.UNSETTLED),
        ("not observed", driver_pod("p", 1), (driver_set(observed=False),), "", S.UNSETTLED),
        ("not observed, newest", driver_pod("p", 2), (driver_set(observed=False),), "", S.UNSETTLED),
        ("no revisions", driver_pod("p", 1), (driver_set(newest=0),), "", S.UNSETTLED),
        ("of a DaemonSet that is gone", driver_pod("p", 1, owner="gone"), (driver_set(),), "", S.UNSETTLED),
        ("no DaemonSet", driver_pod("p", 1), (), "", S.UNSETTLED),
        ("orphan", orphan(), (driver_set(),), "", S.ORPHAN),
        ("of a ReplicaSet: no driver pod, never deleted", pod("p"), (driver_set(),), "", S.UNSETTLED),
        ("of the second DaemonSet", driver_pod("p", 1, owner="b"), (driver_set(newest=1), driver_set("b")), "", S.OUTDATED),
        ("granted for this revision", driver_pod("p", 2), (driver_set(),), "ds@2", S.CURRENT),
        ("granted for an older one", driver_pod("p", 1), (driver_set(),), "ds@1", S.OUTDATED),
        ("granted for a newer one: the cache is behind", driver_pod("p", 2), (driver_set(),), "ds@3", S.UNSETTLED),
        ("granted for a newer one of another DaemonSet", driver_pod("p", 2), (driver_set(),), "x@3", S.CURRENT),
    ],
)
def test_standing(situation: str, of: Pod, sets: tuple[DriverSet, ...], granted: str, judged: Standing):
    assert standing(of, sets, granted) is judged


def test_a_version_put_back_is_the_newest_again():
    """A rollback gives the old template's revision a new number: its pods are current, those since are outdated."""
    back = DriverSet(daemonset(), Revisions({"hash1": 3, "hash2": 2}))
    assert standing(driver_pod("p", 1), (back,)) is S.CURRENT
    assert standing(driver_pod("p", 2), (back,)) is S.OUTDATED


@pytest.mark.parametrize(
    ("of", "known", "listed"),
    [
        (driver_pod("p", 3), driver_set(), True),
        (driver_pod("p", 2), driver_set(), False),
        (driver_pod("p", 1), driver_set(), False),
        (driver_pod("p", 3), driver_set(absent={"hash3"}), False),
        (driver_pod("p", 1), driver_set(newest=0), True),
        (driver_pod("p", 3), driver_set(observed=False), False),
        (orphan(), driver_set(), False),
        (driver_pod("p", 1, owner="gone"), driver_set(), False),
    ],
)
def test_a_list_is_asked_for_where_it_can_help(of: Pod, known: DriverSet, listed: bool):
    assert (needs_list(of, (known,)) is known) is listed


def test_the_owner_is_found_by_uid():
    sets = (driver_set("a"), driver_set("b"))
    assert owner_of(driver_pod("p", 1, owner="b"), sets) is sets[1]
    assert owner_of(driver_pod("p", 1, owner="c"), sets) is None
    assert owner_of(orphan(), sets) is None


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("ds@2", ("ds", 2)),
        ("a@b@3", ("a@b", 3)),
        ("", ("", 0)),
        ("ds", ("ds", 0)),
        ("ds@x", ("ds@x", 0)),
        ("ds@²", ("ds@²", 0)),
        ("@", ("@", 0)),
    ],
)
def test_split_target(target: str, parts: tuple[str, int]):
    assert split_target(target) == parts


@given(st.text(max_size=30))
def test_any_target_can_be_split(target: str):
    assert split_target(target)[1] >= 0


def test_the_target_is_that_of_the_pods_daemonset():
    sets = (driver_set("a", newest=4), driver_set("b", newest=7))
    assert at(State.UPGRADE_DONE, driver_pod("p", 1, owner="b"), sets=sets).target == "b@7"
    assert at(State.UPGRADE_DONE, sets=(driver_set("a", wants=False), driver_set("b", newest=7))).target == "b@7"
    assert at(State.UPGRADE_DONE, sets=()).target == ""
    assert driver_set(observed=False).target == ""
    assert driver_set(newest=0).target == ""
