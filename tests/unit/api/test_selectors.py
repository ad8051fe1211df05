"""Label selectors: parsed, matched, printed and refused as the API server does (the tables say it of both)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.selectors import (
    EVERYTHING,
    LabelSelector,
    LabelSelectorRequirement,
    Requirement,
    Selector,
    SelectorError,
    from_label_selector,
    parse,
)
from tests.unit.api.selector_cases import ACCEPTED, OBJECTS, REFUSED

NAMES = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)
PREFIXES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?(\.[a-z]{1,8}){0,3}/", fullmatch=True)
KEYS = st.builds(str.__add__, st.just("") | PREFIXES, NAMES)
VALUES = st.just("") | NAMES
SETS = st.sets(VALUES, min_size=1, max_size=4).map(lambda values: tuple(sorted(values)))
INTEGERS = st.integers(0, 2**63 - 1).map(lambda number: (str(number),))
REQUIREMENTS = (
    st.builds(Requirement, KEYS, st.sampled_from(["in", "notin"]), SETS)
    | st.builds(Requirement, KEYS, st.sampled_from(["exists", "!"]))
    | st.builds(Requirement, KEYS, st.sampled_from([">", "<"]), INTEGERS)
)
SELECTORS = st.builds(Selector, st.lists(REQUIREMENTS, max_size=5).map(tuple))


def expression(operator: str, *values: str, key: str = "app") -> LabelSelector:
    return LabelSelector(match_expressions=(LabelSelectorRequirement(key=key, operator=operator, values=values),))


@pytest.mark.parametrize(("text", "canonical", "selected"), ACCEPTED)
def test_parses_and_matches(text: str, canonical: str, selected: set[str]):
    selector = parse(text)
    assert str(selector) == canonical
    assert {name for name, labels in OBJECTS.items() if selector.matches(labels)} == selected
    assert selector.empty == (not canonical)


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_refuses_and_says_what_is_wrong(text: str, says: str):
    with pytest.raises(SelectorError) as refused:
        parse(text)
    assert says in str(refused.value)


@given(SELECTORS)
def test_string_form_parses_to_the_same_selector(selector: Selector):
    assert parse(str(selector)) == selector


@given(st.text(alphabet="ab1-_./=!<>(), \tin", max_size=24))
def test_any_text_is_parsed_or_refused_and_never_breaks(text: str):
    try:
        selector = parse(text)
    except SelectorError:
        return
    assert parse(str(selector)) == selector


@given(SELECTORS, st.dictionaries(KEYS, VALUES, max_size=3))
def test_negations_are_complements(selector: Selector, labels: dict[str, str]):
    opposite = {"in": "notin", "notin": "in", "exists": "!", "!": "exists"}
    for requirement in selector.requirements:
        if requirement.op in opposite:
            other = Requirement(requirement.key, opposite[requirement.op], requirement.values)
            assert requirement.matches(labels) != other.matches(labels)


@pytest.mark.parametrize("value", ["1_0", "", "ten", "1.0", "99999999999999999999", "\u0661"])
def test_a_label_that_is_no_number_is_neither_more_nor_less(value: str):
    assert not parse("size>0").matches({"size": value})
    assert not parse("size<99").matches({"size": value})


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (LabelSelector(), ""),
        (LabelSelector(match_labels={}, match_expressions=()), ""),
        (LabelSelector(match_labels={"b": "2", "a": "1"}), "a=1,b=2"),
        (LabelSelector(match_labels={"a": ""}), "a="),
        (expression("In", "b", "a", "a"), "app in (a,b)"),
        (expression("NotIn", "a"), "app!=a"),
        (expression("Exists"), "app"),
        (expression("DoesNotExist"), "!app"),
        (LabelSelector({"a": "1"}, expression("Exists").match_expressions), "a=1,app"),
    ],
)
def test_structured_form(selector: LabelSelector, text: str):
    assert str(from_label_selector(selector)) == text
    assert selector.empty == (not text)


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        (expression("Is", "a"), "use In, NotIn, Exists, DoesNotExist"),
        (expression(""), "operator '' is unknown"),
        (expression("In"), "'app' needs at least one value"),
        (expression("NotIn"), "'app' needs at least one value"),
        (expression("Exists", "a"), "'app' takes no values"),
        (expression("DoesNotExist", "a"), "'app' takes no values"),
        (expression("In", "a b"), "'a b' is not a legal label value"),
        (expression("Exists", key=""), "'' is not a legal label key"),
        (LabelSelector(match_labels={"a b": "c"}), "'a b' is not a legal label key"),
        (LabelSelector(match_labels={"a": "b c"}), "'b c' is not a legal label value"),
    ],
)
def test_structured_form_refused(selector: LabelSelector, says: str):
    with pytest.raises(SelectorError) as refused:
        from_label_selector(selector)
    assert says in str(refused.value)


def test_everything_matches_everything():
    assert EVERYTHING.empty
    assert all(EVERYTHING.matches(labels) for labels in OBJECTS.values())
