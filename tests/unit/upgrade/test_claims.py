"""Device users by ResourceClaim: read before they are judged, evicted where the driver's name matches."""

import msgspec
import pytest

from controller.api.claims import ResourceClaim
from controller.api.pod import Pod
from controller.upgrade.actions import EvictPod, ReadClaims
from controller.upgrade.decide import decide
from controller.upgrade.pods import claim_keys
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.unit.upgrade.builders import NOW, OLD, at, policy

DELETION = policy(podDeletion={"resourceNames": ["nvidia.com/gpu*", "gpu.nvidia.com"]})


def user(**spec: object) -> Pod:
    """A managed, running pod that holds a device through a claim made from a template."""
    return msgspec.convert(
        {
            "metadata": {
                "name": "trainer",
                "namespace": "ml",
                "uid": "trainer",
                "ownerReferences": [{"kind": "Job", "apiVersion": "batch/v1", "name": "j", "uid": "j", "controller": True}],
            },
            "spec": {"nodeName": "n", "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}], **spec},
            "status": {
                "phase": "Running",
                "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "trainer-gpu-x"}],
            },
        },
        Pod,
    )


def test_claims_are_those_of_the_spec_and_those_made_from_templates():
    assert claim_keys(user()) == {"ml/trainer-gpu-x"}
    named = user(resourceClaims=[{"name": "a", "resourceClaimName": "shared"}, {"name": "unmade"}])
    assert claim_keys(named) == {"ml/shared"}


def test_a_claim_is_read_before_its_pod_is_judged():
    decision = decide(at(State.POD_DELETION_REQUIRED, OLD, policy=DELETION, workload=(user(),)), NOW)
    assert decision.actions == (ReadClaims(frozenset({"ml/trainer-gpu-x"})),)
    assert decision.deadline is not None


@pytest.mark.parametrize(("drivers", "evicted"), [(("gpu.nvidia.com",), True), (("nic.example.com",), False), ((), False)])
def test_a_pod_is_a_device_user_by_the_driver_of_its_claim(drivers, evicted):
    claims = {"ml/trainer-gpu-x": drivers}
    decision = decide(at(State.POD_DELETION_REQUIRED, OLD, policy=DELETION, workload=(user(),), claims=claims), NOW)
    assert any(isinstance(a, EvictPod) for a in decision.actions) is evicted
    assert (decision.state is State.POD_RESTART_REQUIRED) is not evicted


def test_a_claim_that_cannot_be_read_does_not_hold_the_node_beyond_its_deadline():
    late = at(State.POD_DELETION_REQUIRED, OLD, policy=DELETION, workload=(user(),))
    decision = decide(late, NOW + 10_000)
    assert not any(isinstance(a, ReadClaims) for a in decision.actions)
    assert (decision.state, decision.reason) == (State.UPGRADE_FAILED, Reason.DEADLINE_EXCEEDED), "it may hold the device"
    assert "ml/trainer-gpu-x" in decision.message


def test_beyond_the_deadline_of_a_claim_that_cannot_be_read_the_drain_has_the_last_word():
    both = policy(podDeletion={"resourceNames": ["gpu.nvidia.com"]}, drain={"enable": True})
    late = at(State.POD_DELETION_REQUIRED, OLD, policy=both, workload=(user(),))
    assert decide(late, NOW + 10_000).state is State.DRAIN_REQUIRED


def test_drivers_of_an_allocated_claim():
    allocation = {"devices": {"results": [{"driver": "gpu.nvidia.com"}, {"driver": "gpu.nvidia.com"}]}}
    claim = msgspec.convert({"metadata": {"name": "c"}, "status": {"allocation": allocation}}, ResourceClaim)
    assert claim.drivers == ("gpu.nvidia.com",)
    assert msgspec.convert({"metadata": {"name": "c"}}, ResourceClaim).drivers == ()
