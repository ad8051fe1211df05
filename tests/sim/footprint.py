"""What a running controller holds on to: tasks, what is in each of its collections, metric series, and memory.

Looked at from outside, by walking from the controller through everything that is its own or a container, so that a
collection that somebody adds tomorrow is counted without being named here; and by asking the garbage collector what else
of ours is alive. Memory is the sum of what the walk comes by, and what ``tracemalloc`` saw allocated by our code.
"""

import asyncio
import contextlib
import gc
import sys
import tracemalloc
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import controller
from controller.kube import ratelimiters, recorder, store
from controller.operate.metrics import Metrics
from controller.upgrade import keys, record
from tests.checker import names, sight
from tests.sim import routes, selectors
from tests.sim import store as history

OURS = str(Path(controller.__file__).parent)
BOUNDED = (
    (store, "TOMBSTONES", 16),
    (recorder, "MAX_CACHED", 16),
    (ratelimiters, "MAX_REMEMBERED", 16),
    (history, "HISTORY", 100),
    (sight, "MANY", 64),
)
"""Bounds of what fills up with what is gone until there is that much, and lower ones; also the simulator's own."""
FILLING = frozenset({"_tombstones", "_full_at"})
"""What is bounded like that is not counted: the store's and the rate limiters' tests see to it."""
CACHES = (keys.keys_for, record._decoded, routes.route, names.parsed, selectors.parse)
"""Caches with a bound of their own, and the simulator's that keep texts of the controller's alive."""
_CONTAINERS = (list, tuple, set, frozenset, deque)
_OWN = "controller."
_COUNTED = ("controller.", "asyncio", "_asyncio")


@contextlib.contextmanager
def low_bounds() -> Iterator[None]:
    """Lower every bound, so that what is bounded is full after a short time and anything that grows after that shows."""
    with contextlib.ExitStack() as stack:
        for module, name, low in BOUNDED:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, low)
        yield


def held(root: object) -> Counter[str]:
    """Count what an object holds, and what it holds, and so on: by ``Class.attribute``, over all instances."""
    counts: Counter[str] = Counter()
    for one, label in _reached(root):
        if isinstance(one, (Mapping, *_CONTAINERS)):
            counts[label] += len(one)
    return counts


def weight(root: object) -> int:
    """Bytes of an object, of all that it holds, and so on."""
    return sum(sys.getsizeof(one) for one, _ in _reached(root))


def _reached(root: object) -> Iterator[tuple[object, str]]:
    """Yield what an object holds, and what it holds, and so on, each once, with the attribute that it was found in."""
    seen: set[int] = set()
    stack: list[tuple[object, str]] = [(root, "")]
    while stack:
        one, label = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one, label
        if isinstance(one, Mapping):
            stack.extend((part, label) for pair in one.items() for part in pair)
        elif isinstance(one, _CONTAINERS):
            stack.extend((part, label) for part in one)
        elif type(one).__module__.startswith(_OWN):
            stack.extend((value, f"{type(one).__name__}.{name}") for name, value in _attributes(one))


def _attributes(one: object) -> Iterator[tuple[str, Any]]:
    slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
    named = {**{name: getattr(one, name, None) for name in slots}, **getattr(one, "__dict__", {})}
    return ((name, value) for name, value in named.items() if name not in FILLING)


def labels_of(metrics: Metrics) -> set[str]:
    """Every value of a label of a metric."""
    samples = (sample for family in metrics.registry.collect() for sample in family.samples)
    return {value for sample in samples for value in sample.labels.values()}


def tasks() -> int:
    """How many tasks there are."""
    return len(asyncio.all_tasks())


def instances() -> Counter[str]:
    """Count the objects of the controller's classes, of tasks, timers and all that waits, wherever they are held."""
    kinds = Counter(type(one) for one in gc.get_objects())
    return Counter(
        {f"{k.__module__}.{k.__qualname__}": n for k, n in kinds.items() if str(k.__module__).startswith(_COUNTED)}
    )


def traced() -> int:
    """Bytes that the controller's code has allocated and that are not free again; 0 where nothing is traced.

    For people to look at: a dictionary of ours whose table the interpreter passes on to a growing simulator counts on.
    """
    if not tracemalloc.is_tracing():
        return 0
    for cache in CACHES:
        cache.cache_clear()
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(inclusive=True, filename_pattern=f"{OURS}/*")])
    return sum(each.size for each in found.statistics("filename"))


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Trace allocations meanwhile."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def resident() -> int:
    """Bytes of the process in memory, the simulator's included; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    return 0
