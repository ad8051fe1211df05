"""The judge and the controller agree on which policies can be understood; each reads them with code of its own."""

import msgspec
import pytest

from controller.api.policy import PolicyObject
from controller.upgrade.policy import resolve
from controller.upgrade.sources import OWN_KIND
from tests.checker.policies import valid
from tests.sim.fuzz import FIELDS, GONE
from tests.sim.scenes import SCENES


def understood(upgrade: dict[str, object]) -> bool:
    """Whether the controller understands a policy."""
    driver = {"name": "gpu", "podSelector": {"matchLabels": {"app": "driver"}}, "upgradePolicy": upgrade}
    return not resolve(
        msgspec.convert({"metadata": {"name": "gpu"}, "spec": {"driver": driver}}, PolicyObject), OWN_KIND
    ).errors


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in FIELDS.items() for value in values])
def test_judge_and_controller_understand_the_same(path: tuple[str, ...], value: object):
    inner = {} if value is GONE else {path[-1]: value}
    policy = {"autoUpgrade": True, **({path[0]: inner} if len(path) > 1 else inner)}
    assert valid(policy) is understood(policy)


def test_every_scene_is_understood():
    assert all(valid(make().policy) and understood(make().policy) for make in SCENES.values())
