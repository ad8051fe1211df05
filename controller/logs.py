"""Log lines: one JSON object each, or text on a terminal. The message is constant, what varies is in fields.

Foreign text (messages of servers and webhooks, names, exceptions) is bounded to 1 KiB a field and cannot forge lines or
colour a terminal: whatever is not printable is escaped, in JSON as in text.

Lines of one pass over a node, or of one pass of the rollout, carry the same ``reconcile``: whoever greps for it has the
story of that pass. Tasks that a pass leaves behind for others (watches, lanes) are begun :func:`detached` from it.
"""

import itertools
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from controller.kube.errors import escape

MAX_TEXT: Final = 1024
MAX_ITEMS: Final = 50
MAX_EXCEPTION_LINES: Final = 100
_DEPTH: Final = 3
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_RECONCILE: ContextVar[str] = ContextVar("reconcile", default="")
_passes = itertools.count(1)


@contextmanager
def reconcile_scope(what: str) -> Iterator[str]:
    """Give every line logged inside, also by tasks begun inside, a common id: ``what`` and a number that grows."""
    token = _RECONCILE.set(f"{what}-{next(_passes)}")
    try:
        yield _RECONCILE.get()
    finally:
        _RECONCILE.reset(token)


def detached() -> Context:
    """Return the context for a task that outlives the pass that begins it."""
    return Context()


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that the caller gave and the pass's id, safe and bounded; empty ones are left out."""
    given = {k: v for k, v in record.__dict__.items() if k not in _STANDARD and v not in (None, "")}
    if reconcile := _RECONCILE.get():
        given.setdefault("reconcile", reconcile)
    return {escape(str(key)): _safe(value) for key, value in given.items()}


def _safe(value: Any, depth: int = _DEPTH) -> Any:
    """Return a value as JSON knows it, with every text in it escaped and bounded."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    if isinstance(value, Mapping) and depth:
        return {escape(str(k)): _safe(v, depth - 1) for k, v in itertools.islice(value.items(), MAX_ITEMS)}
    if isinstance(value, list | tuple) and depth:
        return [_safe(item, depth - 1) for item in value[:MAX_ITEMS]]
    return escape(str(value))


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    """Return a traceback's lines, each safe; of a long one the end, which says what happened."""
    if not record.exc_info:
        return []
    return [escape(line) for line in formatter.formatException(record.exc_info).splitlines()[-MAX_EXCEPTION_LINES:]]


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": escape(record.getMessage()),
            **fields(record),
        }
        if lines := _exception(self, record):
            line["exception"] = "\n".join(lines)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, then fields as ``key=value``; a traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        pairs = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields(record).items())
        line = f"{time} {record.levelname[:4]} {escape(record.getMessage()):<24} {pairs}".rstrip()
        return "\n".join([line, *(f"    {text}" for text in _exception(self, record))])


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode() if any(c in text for c in ' "=') else text


def configure(level: str, form: str) -> None:
    """Log to standard error; ``form`` is ``json``, ``text``, or ``auto``: text on a terminal, else JSON."""
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kubernetes_asyncio").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
