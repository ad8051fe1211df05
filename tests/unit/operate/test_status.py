"""What stands in a policy's status is known from answers; where it is not, the status is written again."""

import pytest

from controller.kube.errors import Forbidden, KubeError, NetworkError, ServerError
from controller.kube.writegate import NotLeading
from controller.operate.status import _Memory

STATUS = {"state": "Idle", "nodes": {"total": 1}}
MORE = {**STATUS, "active": []}


def test_a_status_that_stands_there_is_not_written_again():
    memory = _Memory()
    assert memory.is_told(STATUS, STATUS)
    assert not memory.is_told(STATUS, {})


def test_what_the_server_makes_of_it_is_told_until_somebody_changes_it():
    """A CRD of another version drops what it does not know."""
    memory, pruned = _Memory(), {"state": "Idle"}
    memory.written(STATUS, pruned)
    assert memory.is_told(STATUS, pruned)
    assert not memory.is_told(STATUS, {"state": "Theirs"})


def test_what_is_left_behind_is_written_against_once():
    memory = _Memory()
    memory.written(STATUS, MORE)
    assert not memory.is_told(STATUS, MORE)
    memory.written(STATUS, MORE)
    assert memory.is_told(STATUS, MORE)


@pytest.mark.parametrize(
    ("error", "unsure"),
    [
        (NetworkError("reset"), True),
        (NetworkError("refused", maybe_applied=False), False),
        (NotLeading("another leads", maybe_applied=False), False),
        (ServerError(504), True),
        (Forbidden(403), False),
    ],
    ids=str,
)
def test_what_may_have_been_carried_out_is_written_again(error: KubeError, unsure: bool):
    memory = _Memory()
    memory.failed(error)
    assert memory.is_told(STATUS, STATUS) != unsure
    memory.written(STATUS, STATUS)
    assert memory.is_told(STATUS, STATUS)
