"""Log lines: one per record, foreign text bounded and escaped, the lines of one pass told by its id."""

import asyncio
import logging
import re
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import logs
from controller.logs import MAX_TEXT, JsonFormatter, TextFormatter

CONTROLLER = Path(logs.__file__).parent
FORMATTERS = [JsonFormatter(), TextFormatter()]
CALL = re.compile(r"\blogger\.(log|debug|info|warning|error|exception)\(")
CONSTANT = re.compile(r'logger\.(?:log\([^"]*,|\w+\()\s*"[^"{%]+"\s*[,)]')
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def record(message: str, exc_info=None, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("controller.test", logging.INFO, __file__, 1, message, (), exc_info)
    made.__dict__.update(fields)
    return made


def raised(text: str):
    try:
        raise ValueError(text)  # noqa: TRY301
    except ValueError:
        return sys.exc_info()


def test_json_carries_constant_message_and_fields():
    line = orjson.loads(JsonFormatter().format(record("node moved", node="n-1", state="drain-required", reason="")))
    assert (line["msg"], line["node"], line["state"], line["level"]) == ("node moved", "n-1", "drain-required", "info")
    assert "reason" not in line


@pytest.mark.parametrize("formatter", FORMATTERS)
@pytest.mark.parametrize("evil", ["\n", "\r", "\x1b[31m", "\x9b31m", "\x7f", "\x00", "\u2028", "\u202e", "\x85", "\ud800"])
def test_foreign_text_cannot_forge_a_line_or_colour_a_terminal(formatter, evil):
    text = formatter.format(record("eviction not accepted", error=f'denied{evil}{{"level":"error"}}', names=[evil]))
    assert text.isprintable()
    assert text.encode()


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_nor_can_an_exception(formatter):
    text = formatter.format(record("reconcile crashed", raised("why\n12:00:00 ERRO forged\x1b[31m\x9b\ud800")))
    assert not any(c in text for c in "\x1b\x9b\ud800")
    assert all(line.startswith("    ") for line in text.split("\n")[1:]), "each line of it shows that it is one"


@pytest.mark.parametrize("formatter", FORMATTERS)
@pytest.mark.parametrize("huge", ["x" * 100_000, "ü" * 100_000, ["x" * 100_000] * 2, {"a": "x" * 100_000}, {"x" * 9999: 1}])
def test_foreign_text_is_bounded(formatter, huge):
    assert len(formatter.format(record("eviction not accepted", error=huge)).encode()) < 2 * MAX_TEXT + 300


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_a_traceback_is_bounded_and_keeps_its_end(formatter):
    text = formatter.format(record("reconcile crashed", raised("x\n" * 10_000 + "the end")))
    assert "the end" in text
    assert len(text) < 20_000


@settings(max_examples=100)
@given(st.text(), st.dictionaries(st.text().filter(lambda k: k not in logs._STANDARD), values, max_size=3))
def test_whatever_is_logged_is_one_line(message: str, given_fields: dict[str, object]):
    for formatter in FORMATTERS:
        text = formatter.format(record(message.replace("%", ""), None, **given_fields))
        assert "\n" not in text
        assert text.isprintable()
    assert isinstance(orjson.loads(JsonFormatter().format(record("m", None, **given_fields))), dict)


def test_exceptions_are_kept():
    line = orjson.loads(JsonFormatter().format(record("reconcile crashed", raised("invalid literal"))))
    assert "ValueError: invalid literal" in line["exception"]


def test_objects_that_json_does_not_know_are_printed():
    assert orjson.loads(JsonFormatter().format(record("odd", thing={1, 2})))["thing"] == "{1, 2}"


def test_text_is_quoted_where_it_could_be_taken_for_another_field():
    text = TextFormatter().format(record("node moved", node="n-1", detail="x state=done"))
    assert "node=n-1" in text
    assert 'detail="x state=done"' in text


async def test_the_lines_of_a_pass_carry_its_id_also_from_its_tasks_but_not_from_those_that_outlive_it():
    def reconcile() -> str:
        return str(logs.fields(record("m")).get("reconcile", ""))

    async def later() -> str:
        await asyncio.sleep(0)
        return reconcile()

    assert not reconcile()
    with logs.reconcile_scope("n-1") as one:
        own, other = asyncio.create_task(later()), asyncio.create_task(later(), context=logs.detached())
        assert reconcile() == one
    assert one.startswith("n-1-")
    with logs.reconcile_scope("n-1") as two:
        assert two != one
        assert await own == one
        assert await other == ""
    assert not reconcile()


def test_messages_are_constant():
    """What varies belongs into fields: only so can lines be counted and searched."""
    found = 0
    for path in CONTROLLER.rglob("*.py"):
        source = path.read_text()
        for call in CALL.finditer(source):
            found += 1
            assert CONSTANT.match(source, call.start()), f"{path}: {source[call.start() : call.start() + 80]}"
    assert found > 20
