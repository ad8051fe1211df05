"""The API server's wall clock, which may step and drift."""

from collections.abc import Callable


class ServerTime:
    """Seconds that the server's clock shows, against the seconds that pass."""

    def __init__(self, passed: Callable[[], float]) -> None:
        self._passed = passed
        self._since = self._shown = 0.0
        self._rate = 1.0
        self.set_back = 0.0
        """By how much it was set back in all: deadlines are later by as much."""
        self.set_by = 0.0
        """By how much it was set in all, forward and back."""

    def now(self) -> float:
        return self._shown + (self._passed() - self._since) * self._rate

    def _rebase(self, shown: float) -> None:
        self._shown, self._since = shown, self._passed()

    def step(self, seconds: float) -> None:
        """Jump."""
        self.set_back += max(0.0, -seconds)
        self.set_by += seconds
        self._rebase(self.now() + seconds)

    def drift(self, rate: float) -> None:
        """Run faster or slower from now on."""
        self._rebase(self.now())
        self._rate = rate

    def right(self) -> None:
        """Run as it should, and show the true time again; never by a step back, which would be another fault."""
        self.drift(1.0)
        ahead = self.now() - self._passed()
        if ahead < 0:
            self.set_by -= ahead
            self._rebase(self._passed())
