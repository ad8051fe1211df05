"""One-line questions about pods."""

import pytest
from msgspec.structs import replace

from controller.api.pod import Container, ContainerStatus, Pod, PodCondition
from controller.upgrade.pods import (
    has_empty_dir,
    is_active,
    is_daemonset_pod,
    is_ready,
    is_unmanaged,
    restarts,
    unchanged,
    uses_resource,
    why_not_ready,
)
from controller.upgrade.reasons import Reason
from tests.unit.upgrade.builders import daemonset, driver_pod, orphan, pod

R = Reason


def with_init(of: Pod, *, restarted: int) -> Pod:
    init = (ContainerStatus(name="init", restart_count=restarted),)
    return replace(of, status=replace(of.status, init_container_statuses=init))


def test_ready_is_running_all_containers_ready_and_staying():
    assert is_ready(pod("a"))
    assert not is_ready(pod("a", ready=False))
    assert not is_ready(pod("a", phase="Pending"))
    assert not is_ready(pod("a", phase="Succeeded"))
    assert not is_ready(pod("a", terminating=True))


def test_a_container_without_a_status_is_not_ready():
    two = replace(pod("a"), spec=replace(pod("a").spec, containers=(Container(name="a"), Container(name="b"))))
    assert not is_ready(two)


@pytest.mark.parametrize(
    ("phase", "active"), [("Pending", True), ("Running", True), ("Succeeded", False), ("Failed", False), ("Unknown", False)]
)
def test_active(phase: str, active: bool):
    assert is_active(pod("a", phase=phase)) is active


@pytest.mark.parametrize(
    ("of", "daemon", "bare"),
    [
        (pod("a"), False, False),
        (driver_pod("a", 1), True, False),
        (pod("a", owner=("apps.kruise.io/v1alpha1", "DaemonSet", "x")), False, False),
        (orphan(), False, True),
    ],
)
def test_owners(of: Pod, daemon: bool, bare: bool):
    assert (is_daemonset_pod(of), is_unmanaged(of)) == (daemon, bare)


def test_an_owner_that_does_not_control_is_none():
    owner = replace((pod("a").metadata.owner_references or ())[0], controller=False)
    assert is_unmanaged(replace(pod("a"), metadata=replace(pod("a").metadata, owner_references=(owner,))))


def test_empty_dir():
    assert has_empty_dir(pod("a", empty_dir=True))
    assert not has_empty_dir(pod("a"))


def test_restarts_are_the_worst_containers():
    assert restarts(pod("a", restarts=3)) == 3
    assert restarts(with_init(pod("a", restarts=3), restarted=5)) == 5
    assert restarts(Pod(metadata=pod("a").metadata)) == 0


@pytest.mark.parametrize(
    ("of", "patterns", "used"),
    [
        (pod("a", resource="nvidia.com/gpu"), ("nvidia.com/gpu*",), True),
        (pod("a", resource="nvidia.com/gpu.shared"), ("nvidia.com/gpu*",), True),
        (pod("a", resource="nvidia.com/mig-1g.5gb"), ("nvidia.com/gpu*",), False),
        (pod("a", resource="nvidia.com/mig-1g.5gb"), ("nvidia.com/gpu*", "nvidia.com/mig-*"), True),
        (pod("a", init_resource="nvidia.com/gpu"), ("nvidia.com/gpu",), True),
        (pod("a", resource="cpu"), ("nvidia.com/gpu*",), False),
        (pod("a", resource="nvidia.com/gpu"), (), False),
        (pod("a"), ("nvidia.com/gpu*",), False),
    ],
)
def test_uses_resource(of: Pod, patterns: tuple[str, ...], used: bool):
    assert uses_resource(of, patterns) is used


@pytest.mark.parametrize(
    ("running", "template", "same"),
    [("d1", "d1", True), ("d1", "d2", False), ("", "", False), ("d1", "", False), ("", "d1", False)],
)
def test_unchanged_is_equal_and_not_empty(running: str, template: str, same: bool):
    assert unchanged(driver_pod("a", 1, env={"DIGEST": running}), daemonset(env={"DIGEST": template}), "DIGEST") is same


def test_another_variable_says_nothing():
    assert not unchanged(driver_pod("a", 1, env={"DIGEST": "d"}), daemonset(env={"OTHER": "d"}), "DIGEST")


UNSCHEDULED = (PodCondition(type="PodScheduled", status="False", reason="Unschedulable", message="no room"),)


@pytest.mark.parametrize(
    ("of", "reason", "part"),
    [
        (pod("a", terminating=True), R.DRIVER_POD_TERMINATING, "shutting down"),
        (pod("a", terminating=True, finalizers=("x/y",)), R.DRIVER_POD_TERMINATING, "x/y"),
        (pod("a", waiting="ImagePullBackOff", phase="Pending"), R.IMAGE_PULL_FAILED, "ImagePullBackOff"),
        (pod("a", waiting="ErrImagePull", phase="Pending"), R.IMAGE_PULL_FAILED, "main"),
        (pod("a", waiting="CrashLoopBackOff", restarts=4), R.DRIVER_POD_CRASHING, "4 times"),
        (pod("a", waiting="PodInitializing", phase="Pending"), R.DRIVER_POD_PENDING, "not started"),
        (pod("a", phase="Pending", ready=False, conditions=UNSCHEDULED), R.DRIVER_POD_PENDING, "no room"),
        (pod("a", ready=False, restarts=2), R.DRIVER_POD_NOT_READY, "2 restarts"),
        (pod("a", phase="Failed", ready=False), R.DRIVER_POD_NOT_READY, "Failed"),
    ],
)
def test_why_not_ready(of: Pod, reason: Reason, part: str):
    said, message = why_not_ready(of)
    assert said is reason
    assert part in message
