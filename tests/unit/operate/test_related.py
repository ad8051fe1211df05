"""What an Event of a node points to beside it: the policy, as `kubectl get` finds it."""

from typing import Any

import pytest

from controller.api.event import ObjectReference
from controller.operate.events import Events
from controller.upgrade.narration import Told
from controller.upgrade.sources import GPU_CLUSTER_POLICY, OWN_KIND, Source
from tests.unit.upgrade.builders import node, policy, view


class Heard:
    """A recorder that keeps what the last Event is related to."""

    def event(self, *said: Any) -> None:
        *_, self.related = said


@pytest.mark.parametrize(("source", "namespace"), [(OWN_KIND, "ops"), (GPU_CLUSTER_POLICY, "")])
def test_a_cluster_scoped_policy_has_no_namespace(source: Source, namespace: str):
    """Whatever namespace it counts in: kubectl would look it up there and find nothing."""
    heard, of = Heard(), policy(source=source)
    assert of.namespace
    Events(heard).decision(view(node(), policy=of), [Told("Moved", "Upgrade", "why")])  # type: ignore[arg-type]
    assert heard.related == ObjectReference(source.kind, "gpu", namespace, "gpu-uid", f"nvidia.com/{source.version}")
