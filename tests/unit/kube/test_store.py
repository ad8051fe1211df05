"""The store: never older, never resurrected, indexes always equal to a recount, handlers told of everything once."""

import logging
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.meta import ObjectMeta
from controller.api.node import Node
from controller.kube.store import TOMBSTONES, Store


def node(name: str, version: int | str, uid: str = "", **labels: str) -> Node:
    return Node(ObjectMeta(name=name, uid=uid or f"uid-{name}", resource_version=str(version), labels=labels))


def recorded(store: Store[Node]) -> list[tuple[Any, Any]]:
    """What handlers are told from now on, as pairs of resourceVersions."""
    seen: list[tuple[Any, Any]] = []
    store.add_handler(
        lambda old, new: seen.append((old and old.metadata.resource_version, new and new.metadata.resource_version))
    )
    return seen


def test_only_newer_versions_enter() -> None:
    store = Store[Node]()
    seen = recorded(store)
    assert store.apply(node("a", 9))
    assert store.observe_write(node("a", 10))
    assert not store.apply(node("a", 9))
    assert not store.apply(node("a", 10))
    assert store.apply(node("a", 11))
    assert seen == [(None, "9"), ("9", "10"), ("10", "11")]


def test_versions_that_are_no_integers_lose_no_update() -> None:
    store = Store[Node]()
    store.apply(node("a", "x"))
    assert store.apply(node("a", "y"))
    assert not store.apply(node("a", "y"))


def test_a_late_answer_does_not_resurrect_the_dead() -> None:
    store = Store[Node]()
    store.apply(node("a", 5))
    assert store.delete(node("a", 7))
    assert not store.observe_write(node("a", 6))
    assert not store.observe_write(node("a", 8))
    assert store.get("a") is None
    assert store.observe_write(node("a", 8, uid="another"))


def test_an_object_that_a_list_no_longer_has_is_dead_as_well() -> None:
    store = Store[Node]()
    store.apply(node("a", 5))
    store.replace([], "9")
    assert not store.observe_write(node("a", 6))
    assert len(store) == 0


def test_a_deletion_seen_before_the_object_is_remembered() -> None:
    store = Store[Node]()
    assert not store.delete(node("a", 7))
    assert not store.observe_write(node("a", 6))


def test_what_left_the_selection_of_a_watch_may_enter_it_again() -> None:
    store = Store[Node]()
    seen = recorded(store)
    store.apply(node("a", 5))
    assert store.delete(node("a", 6))
    assert not store.apply(node("a", 6)), "an event that was told before"
    assert not store.observe_write(node("a", 7)), "an own write to what is out of sight: nobody would tell its end"
    assert store.apply(node("a", 7))
    assert store.observe_write(node("a", 8))
    assert seen == [(None, "5"), ("6", None), (None, "7"), ("7", "8")]


def test_what_was_gone_at_a_version_is_not_brought_back_by_anything_older() -> None:
    store = Store[Node]()
    store.apply(node("a", 5))
    store.delete(node("a", 5), gone_at="9")
    assert not store.apply(node("a", 8)), "its watch is behind"
    assert not store.delete(node("a", 8)), "its end, which is told late"
    assert not store.apply(node("a", 9))
    assert store.apply(node("a", 10)), "it is there after all"


def test_what_a_list_no_longer_had_comes_back_by_the_watch_alone_and_only_anew() -> None:
    store = Store[Node]()
    store.apply(node("a", 5))
    store.replace([], "9")
    assert not store.apply(node("a", 9))
    assert store.apply(node("a", 10))


def test_what_a_list_brings_back_is_followed_again() -> None:
    store = Store[Node]()
    store.apply(node("a", 5))
    store.delete(node("a", 5), gone_at="9")
    store.replace([node("a", 5)], "11")
    assert store.observe_write(node("a", 6))
    assert store.apply(node("a", 7))


def test_a_list_does_not_resurrect_what_ended_after_it_was_taken() -> None:
    store = Store[Node]()
    store.apply(node("a", 5))
    store.delete(node("a", 110))
    store.replace([node("a", 5), node("b", 6)], "100")
    assert [n.name for n in store.list()] == ["b"], "the watch is past its end, and tells it no second time"
    assert not store.observe_write(node("a", 120)), "it is still known to be dead"
    store.replace([node("a", 115)], "120")
    assert [n.name for n in store.list()] == ["a"], "a newer list knows better: it had only left the selection"


def test_a_list_from_before_the_end_of_one_and_before_its_successor_leaves_the_successor_alone() -> None:
    store = Store[Node]()
    store.apply(node("a", 5, uid="one"))
    store.delete(node("a", 110, uid="one"))
    store.apply(node("a", 112, uid="two"))
    store.replace([node("a", 5, uid="one")], "100")
    assert [n.uid for n in store.list()] == ["two"]


def test_a_list_whose_version_cannot_be_ordered_is_believed() -> None:
    store = Store[Node]()
    store.apply(node("a", "x"))
    store.delete(node("a", "y"))
    store.replace([node("a", "v")], "z")
    assert [n.name for n in store.list()] == ["a"]


def test_tombstones_are_bounded() -> None:
    store = Store[Node]()
    for number in range(TOMBSTONES + 10):
        store.delete(node(f"n{number}", 1))
    assert len(store._tombstones) == TOMBSTONES
    assert store.observe_write(node("n0", 2))
    assert not store.observe_write(node(f"n{TOMBSTONES}", 2))


def test_a_late_deletion_does_not_hit_the_successor() -> None:
    store = Store[Node]()
    store.observe_write(node("a", 9, uid="new"))
    assert not store.delete(node("a", 8, uid="old"))
    assert store.get("a") is not None


def test_handlers_of_a_deletion_see_the_object_as_it_was_at_its_end() -> None:
    store = Store[Node]()
    store.apply(node("a", 5))
    seen = recorded(store)
    store.delete(node("a", 7))
    assert seen == [(None, "5"), ("7", None)]


@pytest.mark.parametrize("how", ["apply", "replace"])
def test_a_recreated_object_is_told_as_gone_and_new(how: str) -> None:
    store = Store[Node]()
    store.apply(node("a", 5, uid="one"))
    seen = recorded(store)
    if how == "apply":
        store.apply(node("a", 8, uid="two"))
    else:
        store.replace([node("a", 8, uid="two")], "9")
    assert seen[1:] == [("5", None), (None, "8")]
    assert not store.observe_write(node("a", 10, uid="one"))


def test_replace_tells_the_differences_only() -> None:
    store = Store[Node]()
    for name in "abc":
        store.apply(node(name, 5))
    seen = recorded(store)
    del seen[:]
    store.replace([node("a", 5), node("b", 6), node("d", 7)], "9")
    assert sorted(seen, key=str) == sorted([("5", "6"), (None, "7"), ("5", None)], key=str)
    assert {n.name for n in store.list()} == {"a", "b", "d"}


def test_replace_keeps_what_is_newer_than_the_list_and_what_could_not_be_read() -> None:
    store = Store[Node]()
    store.apply(node("unreadable", 3))
    store.observe_write(node("written", 12))
    store.observe_write(node("created", 13))
    store.replace([node("written", 8)], "10", keep={"unreadable"})
    assert {n.name: n.metadata.resource_version for n in store.list()} == {
        "unreadable": "3",
        "written": "12",
        "created": "13",
    }


def test_handlers_see_a_replaced_store_as_a_whole() -> None:
    store = Store[Node]()
    sizes: list[int] = []
    store.add_handler(lambda _old, _new: sizes.append(len(store)))
    store.replace([node(name, 1) for name in "abc"], "2")
    assert sizes == [3, 3, 3]


def test_a_broken_handler_does_not_hurt_the_others(caplog: pytest.LogCaptureFixture) -> None:
    store = Store[Node]()
    store.add_handler(lambda _old, _new: 1 / 0)  # type: ignore[arg-type]
    seen = recorded(store)
    with caplog.at_level(logging.ERROR):
        store.apply(node("a", 1))
    assert seen == [(None, "1")]
    assert "ZeroDivisionError" in caplog.text


def test_a_late_handler_is_told_of_what_is_there_and_can_be_removed() -> None:
    store = Store[Node]()
    store.apply(node("a", 1))
    seen: list[Any] = []
    remove = store.add_handler(lambda old, new: seen.append((old, new)))
    assert seen == [(None, store.get("a"))]
    remove()
    store.apply(node("b", 2))
    assert len(seen) == 1


def test_an_index_function_that_stumbles_over_one_object_indexes_the_others(caplog: pytest.LogCaptureFixture) -> None:
    store = Store[Node]()
    store.index_by("pool", lambda n: [n.labels["pool"]])
    with caplog.at_level(logging.ERROR):
        store.apply(node("bad", 1))
        store.apply(node("good", 2, pool="x"))
        store.apply(node("bad", 3, pool="x"))
    assert store.count_by_index("pool", "x") == 2
    assert "KeyError" in caplog.text


def test_index_names_are_unique() -> None:
    store = Store[Node]()
    store.index_by("x", lambda _: [])
    with pytest.raises(ValueError, match="already an index 'x'"):
        store.index_by("x", lambda _: [])


NODES = st.builds(
    lambda name, version, uid, pool: node(name, version, f"{name}-{uid}", **({"pool": pool} if pool else {})),
    st.sampled_from("abc"),
    st.integers(1, 30),
    st.integers(0, 1),
    st.sampled_from(["", "x", "y"]),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), NODES),
        st.tuples(st.just("write"), NODES),
        st.tuples(st.just("delete"), NODES),
        st.tuples(st.just("replace"), st.tuples(st.lists(NODES, max_size=4), st.integers(1, 30))),
    ),
    max_size=40,
)


@given(STEPS)
def test_indexes_and_handlers_always_agree_with_the_store(steps: list[tuple[str, Any]]) -> None:
    store = Store[Node]()
    mirror: dict[str, Node] = {}

    def follow(old: Node | None, new: Node | None) -> None:
        assert old is None or new is None or old.uid == new.uid
        assert (old is None) == ((old or new).key not in mirror)  # type: ignore[union-attr]
        if new is None:
            assert old is not None
            del mirror[old.key]
        else:
            mirror[new.key] = new

    store.index_by("pool", lambda n: [p for p in [n.labels.get("pool")] if p])
    store.add_handler(follow)
    for name, argument in steps:
        held = {n.key: n for n in store.list()}
        match name:
            case "replace":
                store.replace(argument[0], str(argument[1]))
            case "delete":
                store.delete(argument)
            case _:
                {"apply": store.apply, "write": store.observe_write}[name](argument)
                if argument.key in held:
                    kept = store.get(argument.key)
                    assert kept is not None
                    assert int(kept.metadata.resource_version) >= int(held[argument.key].metadata.resource_version)
        assert mirror == {n.key: n for n in store.list()}
        recount: dict[Any, set[str]] = defaultdict(set)
        for n in store.list():
            for value in [n.labels.get("pool")]:
                if value:
                    recount[value].add(n.key)
        assert {v: {n.key for n in store.by_index("pool", v)} for v in store.index_values("pool")} == dict(recount)
        assert all(store.count_by_index("pool", value) == len(keys) for value, keys in recount.items())
