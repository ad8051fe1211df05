"""The judge of a world, told what has happened: of a real cluster nobody would wait for what takes half a minute."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.checker import Event, Subject
from tests.cluster.evidence import Evidence
from tests.cluster.judge import Case, judge
from tests.cluster.process import Process
from tools.controlplane.resources import Object

SUBJECT = Subject(driver="gpu", namespace="drivers", daemonset="driver", policy="gpu", may_fail=True)
STATE = "nvidia.com/gpu-driver-upgrade-state"
BEGUN, LONG = 100.0, 60.0


class Told(Evidence):
    """What a test tells, in the place of what was seen."""

    def __init__(self, *events: Event) -> None:
        self.told = events
        self.lag = 0.0

    def subjects(self, _: object) -> list[Subject]:
        return [SUBJECT]

    def events(self, _: object) -> Iterator[Event]:
        return iter(self.told)

    def window(self, _: Event) -> float:
        return 2.0

    def lost(self, _begin: float, _end: float) -> float:
        return 0.0


class Ran(Process):
    """A process that has run all the time."""

    def __init__(self, synced: float = 0.0, signalled: float = float("inf")) -> None:
        self.flags = ()
        self.synced, self.signalled, self.over, self.asked = synced, signalled, signalled, False


class Tale:
    """Makes events, each with the next resourceVersion."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._now: dict[str, Object] = {}

    def tell(self, at: float, actor: str, kind: str, key: str, obj: Object, body: Any = None) -> int:
        """An object is now so."""
        number = len(self.events) + 1
        old = self._now.get(key)
        new = {
            **obj,
            "metadata": {"name": key.rpartition("/")[2], "uid": key, **obj["metadata"], "resourceVersion": str(number)},
        }
        self._now[key] = new
        verb = "PATCH" if old else "POST"
        if actor == "controller":
            body = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"] if old else "0"}}
        self.events.append(Event(at, at, actor, verb, kind, key, "", old, new, body, 200))
        return number

    def node(self, at: float, state: str, actor: str = "controller", *, closed: bool = False, **labels: str) -> int:
        """The node goes into a state."""
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        spec = {"unschedulable": True} if closed else {}
        return self.tell(
            at, actor, "nodes", "n", {"metadata": {"labels": {STATE: state, **labels}}, "spec": spec, "status": ready}
        )

    def begins(self, at: float = BEGUN) -> None:
        """A policy, a driver of revision 2 and a node that is outdated."""
        upgrade = {"autoUpgrade": True, "maxParallelUpgrades": 1}
        policy = {"metadata": {"namespace": "drivers", "generation": 1}, "spec": {"driver": {"upgradePolicy": upgrade}}}
        self.tell(at, "admin", "driverupgradepolicies", "drivers/gpu", policy)
        daemonset = {"metadata": {"namespace": "drivers", "uid": "ds"}, "spec": {"template": {"spec": {}}}}
        self.tell(at, "admin", "daemonsets", "drivers/driver", daemonset)
        for revision in (1, 2):
            made = {"metadata": {"namespace": "drivers", **self._of(f"hash{revision}")}, "revision": revision}
            self.tell(at, "cluster", "controllerrevisions", f"drivers/r{revision}", made)
        self.node(at, "", "cluster")
        self.driver(at, "hash1")

    def driver(self, at: float, digest: str) -> None:
        """The driver pod of the node."""
        status = {
            "phase": "Running",
            "containerStatuses": [{"ready": True}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        meta = {"namespace": "drivers", **self._of(digest)}
        self.tell(
            at,
            "cluster",
            "pods",
            f"drivers/{digest}",
            {"metadata": meta, "spec": {"nodeName": "n", "containers": [{}]}, "status": status},
        )

    def gone(self, at: float, digest: str) -> None:
        """A driver pod is no more."""
        old = self._now.pop(f"drivers/{digest}")
        self.events.append(Event(at, at, "kwok", "DELETE", "pods", f"drivers/{digest}", "", old, None, None, 200))

    def heartbeat(self, at: float) -> None:
        """Something else happens."""
        self.tell(
            at, "kwok", "pods", "drivers/other", {"metadata": {"namespace": "drivers"}, "spec": {}, "status": {"at": at}}
        )

    @staticmethod
    def _of(digest: str) -> Object:
        owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "driver", "uid": "ds", "controller": True}
        return {"labels": {"app": "driver", "controller-revision-hash": digest}, "ownerReferences": [owner]}


def said(tale: Tale, processes: Sequence[Process] = (Ran(),), done: int = 0, done_at: float = 0.0) -> list[str]:
    """The rules that the judge finds broken."""
    case = Case(Told(*tale.events), [], "drivers", processes, done, done_at)
    return [violation.split()[1] for violation in judge(case)]


def cordoned() -> Tale:
    """A node that was granted and is to be cordoned."""
    tale = Tale()
    tale.begins()
    tale.node(BEGUN + 1, "upgrade-required")
    tale.node(BEGUN + 2, "cordon-required")
    return tale


def test_a_step_that_nothing_stands_in_the_way_of_is_late():
    tale = cordoned()
    tale.heartbeat(BEGUN + 30)
    assert not said(tale)
    tale.heartbeat(BEGUN + LONG)
    tale.heartbeat(BEGUN + LONG + 1)
    assert said(tale) == ["L4"], "and that is said once"


def test_nobody_was_there_to_take_the_step():
    tale = cordoned()
    tale.heartbeat(BEGUN + LONG)
    assert not said(tale, [Ran(signalled=BEGUN + 3)])
    assert not said(tale, [Ran(synced=BEGUN + LONG - 1)])
    assert not said(tale, [Ran(), Ran()])


def test_a_step_waits_for_what_is_on_the_node():
    tale = cordoned()
    pod = {
        "metadata": {"namespace": "work", "labels": {"app": "web"}},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Running"},
    }
    tale.tell(BEGUN + 2, "cluster", "pods", "work/web", pod)
    tale.node(BEGUN + 3, "drain-required", closed=True)
    tale.heartbeat(BEGUN + LONG)
    assert not said(tale)
    tale.tell(BEGUN + LONG, "kwok", "pods", "work/web", {**pod, "status": {"phase": "Succeeded"}})
    tale.heartbeat(BEGUN + LONG + 30)
    assert not said(tale)
    tale.heartbeat(BEGUN + 2 * LONG)
    assert said(tale) == ["L4"]


def test_a_driver_that_stands_is_restarted_and_one_that_is_ready_followed():
    tale = cordoned()
    tale.node(BEGUN + 3, "pod-restart-required", closed=True)
    tale.heartbeat(BEGUN + LONG)
    assert said(tale) == ["L4"]
    tale = cordoned()
    tale.node(BEGUN + 3, "pod-restart-required", closed=True)
    tale.gone(BEGUN + 4, "hash1")
    tale.heartbeat(BEGUN + LONG)
    assert not said(tale), "there is none yet"
    tale.driver(BEGUN + LONG, "hash2")
    tale.heartbeat(BEGUN + 2 * LONG)
    assert said(tale) == ["L4"]


def finished() -> tuple[Tale, int]:
    """A node whose upgrade is done, and when that was."""
    tale = cordoned()
    tale.node(BEGUN + 3, "pod-restart-required", closed=True)
    tale.gone(BEGUN + 4, "hash1")
    tale.driver(BEGUN + 5, "hash2")
    tale.node(BEGUN + 6, "uncordon-required", closed=True)
    return tale, tale.node(BEGUN + 7, "upgrade-done")


def written_after(tale: Tale, processes: Sequence[Process] = (Ran(),), done: int = 0) -> bool:
    """Whether the judge finds that something was written when all was done."""
    case = Case(Told(*tale.events), [], "drivers", processes, done, BEGUN + 7)
    return any(" L3 " in violation and "written after everything was done" in violation for violation in judge(case))


def test_nothing_is_written_once_all_is_done():
    tale, done = finished()
    assert not said(tale, done=done, done_at=BEGUN + 7)
    tale.node(BEGUN + 8, "upgrade-done", "kwok", beat="1")
    assert not said(tale, done=done, done_at=BEGUN + 7)
    tale.node(BEGUN + 9, "upgrade-required", beat="1")
    assert written_after(tale, done=done)
    assert not written_after(tale, [Ran(synced=BEGUN + 8)], done=done), "who comes anew may have reasons"
    assert not written_after(tale), "nobody said that all was done"


def test_what_people_change_after_all_was_done_is_a_reason_to_write():
    tale, done = finished()
    tale.node(BEGUN + 8, "upgrade-done", "admin", beat="1")
    tale.node(BEGUN + 9, "upgrade-required", beat="1")
    assert not written_after(tale, done=done)


def test_a_rollout_that_was_not_done_goes_on():
    tale = cordoned()
    done = len(tale.events)
    tale.node(BEGUN + 3, "drain-required", closed=True)
    assert not said(tale, done=done, done_at=BEGUN + 2)
