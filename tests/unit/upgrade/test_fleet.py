"""The tallies: whatever changes, they equal a recount."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.upgrade.facts import ORDINARY, OTHER_TARGET, REQUESTED, RETRY, SAFE_LOAD, Ask, Facts
from controller.upgrade.fleet import LEFT_SOON, Fleet, Tally, group_of
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State

NODES = [f"n{i}" for i in range(6)]
facts = st.builds(
    Facts,
    policy=st.sampled_from(["p", "q"]),
    state=st.sampled_from(State),
    managed=st.booleans(),
    in_progress=st.booleans(),
    available=st.booleans(),
    target=st.sampled_from(["", "ds@1", "ds@2"]),
    failed_target=st.sampled_from(["", "ds@2"]),
    ask=st.sampled_from(Ask),
    rank=st.sampled_from([OTHER_TARGET, RETRY, REQUESTED, SAFE_LOAD, ORDINARY]),
    blocked=st.none() | st.sampled_from([Reason.SKIPPED, Reason.OTHER_OPERATOR, Reason.REVISION_UNKNOWN]),
    since=st.sampled_from([0.0, 10.0, 20.0]),
    outdated=st.booleans(),
)
changes = st.lists(st.tuples(st.sampled_from(["gpu", "ofed"]), st.sampled_from(NODES), st.none() | facts), max_size=30)


def recount(known: dict[tuple[str, str], Facts], driver: str, policy: str) -> Tally:
    """What the counts must be, computed the slow way."""
    mine = {name: f for (d, name), f in known.items() if (d, f.policy) == (driver, policy)}
    managed = [f for f in mine.values() if f.managed]
    tally = Tally()
    tally.total = len(managed)
    tally.in_progress = sum(f.in_progress for f in mine.values())
    tally.unavailable = sum(not f.available for f in managed)
    tally.states = Counter(f.state for f in managed)
    tally.blocked = Counter(f.blocked for f in mine.values() if f.blocked)
    waits = (f for f in mine.values() if f.state is State.UPGRADE_REQUIRED or f.outdated)
    tally.stuck = Counter(f.blocked for f in waits if f.blocked and f.blocked is not Reason.REVISION_UNKNOWN)
    tally.targets = Counter(f.target for f in managed if f.target)
    tally.failures = Counter(f.failed_target for f in managed if f.failed_target)
    tally.validations = sorted((f.rank, name) for name, f in mine.items() if f.ask is Ask.VALIDATION)
    tally.current = Counter(f.target for f in managed if f.target and f.state is State.UPGRADE_DONE)
    done = ((f.since, name) for name, f in mine.items() if f.managed and f.state is State.UPGRADE_DONE)
    tally.finished = sorted((since, name) for since, name in done if since)
    for name, f in sorted(mine.items(), key=lambda item: (item[1].rank, item[0])):
        if f.blocked:
            tally.held.setdefault(f.blocked, []).append((f.rank, name))
    for name, f in mine.items():
        if f.since and f.state in LEFT_SOON and (f.managed or f.in_progress):
            tally.since.setdefault(f.state, {})[name] = f.since
    for name, f in sorted(mine.items(), key=lambda item: (item[1].rank, item[0])):
        if f.ask is Ask.GRANT and f.blocked is None:
            tally.groups.setdefault(group_of(f), []).append((f.rank, name))
    return tally


@settings(max_examples=300, deadline=None)
@given(changes)
def test_tallies_kept_up_equal_a_recount(steps: list[tuple[str, str, Facts | None]]):
    fleet, known = Fleet(), dict[tuple[str, str], Facts]()
    for driver, name, new in steps:
        changed = fleet.update(driver, name, new)
        assert changed == (known.get((driver, name)) != new)
        known.pop((driver, name), None)
        if new is not None:
            known[(driver, name)] = new
    for driver in ("gpu", "ofed"):
        for policy in ("p", "q"):
            assert vars(fleet.tally(driver, policy)) == vars(recount(known, driver, policy))

    for name in NODES:
        assert set(fleet.drivers_of(name)) == {d for d, n in known if n == name}


@settings(max_examples=100, deadline=None)
@given(changes)
def test_nothing_is_left_when_all_nodes_are_gone(steps: list[tuple[str, str, Facts | None]]):
    fleet = Fleet()
    for driver, name, new in steps:
        fleet.update(driver, name, new)
    for driver in ("gpu", "ofed"):
        for name in NODES:
            fleet.update(driver, name, None)
    assert list(fleet.tallies()) == []


def test_a_blocked_node_that_is_not_managed_leaves_no_trace():
    fleet = Fleet()
    fleet.update("gpu", "stray", Facts("p", State.UPGRADE_REQUIRED, ask=Ask.GRANT, blocked=Reason.DRIVER_POD_MISSING))
    fleet.update("gpu", "n1", Facts("p", State.UPGRADE_DONE, managed=True))
    fleet.update("gpu", "stray", None)
    assert fleet.tally("gpu", "p").blocked == {}


def test_what_is_known_of_a_node_can_be_asked():
    fleet, known = Fleet(), Facts("p", State.UPGRADE_DONE, managed=True)
    assert fleet.facts("gpu", "n1") is None
    assert fleet.update("gpu", "n1", known)
    assert fleet.facts("gpu", "n1") == known
    assert not fleet.update("gpu", "n1", known)


def test_candidates_of_all_groups_come_in_one_order():
    tally = Tally()
    for name, rank, target in [("c", ORDINARY, "a"), ("b", ORDINARY, "b"), ("d", OTHER_TARGET, "b"), ("a", REQUESTED, "a")]:
        tally.count(name, Facts("p", State.UPGRADE_REQUIRED, ask=Ask.GRANT, rank=rank, target=target), 1)
    found = [name for (_, name), _ in tally.candidates(frozenset(), 9, room=True)]
    assert found == ["d", "a", "b", "c"]
    assert tally.waiting() == 4
