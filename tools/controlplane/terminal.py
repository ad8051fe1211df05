"""Progress for people: one live line on a terminal, a plain line now and then everywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

PLAIN_INTERVAL = 15.0


class Reporter:
    """Says on standard error what is being done; standard output stays for results."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def line(self, text: str) -> None:
        """Prints one line."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator["Task"]:
        """Announces a task, follows it, and tells how long it took unless it fails."""
        start = time.monotonic()
        if self.console.is_terminal:
            with self.console.status(title) as status:
                yield Task(self, title, status)
        else:
            self.line(f"{title} …")
            yield Task(self, title, None)
        self.line(f"{title}: done in {time.monotonic() - start:.0f} s")


class Task:
    """One task in progress."""

    def __init__(self, reporter: Reporter, title: str, status: Status | None) -> None:
        self._reporter = reporter
        self._title = title
        self._status = status
        self._start = self._last = time.monotonic()

    def update(self, detail: str) -> None:
        """Shows where the task is; cheap enough to call many times a second."""
        now = time.monotonic()
        text = f"{self._title}, {now - self._start:.0f} s: {detail}"
        if self._status is not None:
            self._status.update(text)
        elif now - self._last >= PLAIN_INTERVAL:
            self._last = now
            self._reporter.line(text)
