"""The audit log reader: counts once, keeps order, and waits for the rest of a half-written line."""

from pathlib import Path

import orjson

from tools.controlplane.audit import AuditLog, count, writes


def event(
    identity: str, verb: str, *, stage: str = "ResponseComplete", agent: str = "witness/1 (x)", at: int = 0, **reference: str
):
    return {
        "auditID": identity,
        "stage": stage,
        "verb": verb,
        "requestURI": "/readyz?verbose" if not reference else "/api",
        "userAgent": agent,
        "user": {"username": "admin"},
        "objectRef": reference,
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2030-01-01T00:00:00.000000Z",
        "stageTimestamp": f"2030-01-01T00:00:00.{at:06}Z",
    }


def written(path: Path, *events: dict[str, object]) -> AuditLog:
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in events))
    return AuditLog(path)


def test_counts_by_client_verb_and_target(tmp_path: Path) -> None:
    log = written(
        tmp_path / "audit.log",
        event("1", "create", resource="pods", subresource="eviction", name="a"),
        event("2", "create", resource="pods", subresource="eviction", name="b"),
        event("3", "patch", resource="nodes", agent="kwok"),
        event("4", "get"),
    )
    assert count(log.read()) == {
        ("witness", "create", "pods/eviction"): 2,
        ("kwok", "patch", "nodes"): 1,
        ("witness", "get", "/readyz"): 1,
    }


def test_a_watch_counts_once_whenever_it_ends(tmp_path: Path) -> None:
    log = written(
        tmp_path / "audit.log",
        event("1", "watch", stage="ResponseStarted", resource="pods"),
        event("2", "get", resource="pods"),
        event("1", "watch", resource="pods"),
    )
    assert [request.verb for request in log.read()] == ["watch", "get"]


def test_half_a_line_is_left_for_the_next_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = written(path, event("1", "get", resource="pods"))
    line = orjson.dumps(event("2", "delete", resource="pods")) + b"\n"
    with path.open("ab") as file:
        file.write(line[:40])
    assert [request.verb for request in log.read()] == ["get"]
    assert not list(log.read())
    with path.open("ab") as file:
        file.write(line[40:])
    assert [request.verb for request in log.read()] == ["delete"]


def test_skip_forgets_what_was_there(tmp_path: Path) -> None:
    log = written(tmp_path / "audit.log", event("1", "get", resource="pods"))
    log.skip()
    assert not list(log.read())


def test_writes_of_one_client_in_the_order_of_their_answers(tmp_path: Path) -> None:
    log = written(
        tmp_path / "audit.log",
        event("1", "delete", at=30, resource="pods", name="third"),
        event("2", "list", at=5, resource="pods"),
        event("3", "patch", at=10, resource="nodes", name="first"),
        event("4", "update", at=15, agent="kwok", resource="nodes", name="another's"),
        event("5", "create", at=20, resource="pods", subresource="eviction", name="second"),
    )
    assert [request.name for request in writes(log.read(), "witness")] == ["first", "second", "third"]


def test_a_watch_that_was_opened_before_is_not_counted_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = written(path, event("1", "watch", stage="ResponseStarted", resource="pods"))
    half = orjson.dumps(event("2", "get", resource="pods")) + b"\n"
    with path.open("ab") as file:
        file.write(half[:40])
    log.skip()
    refused = event("3", "watch", resource="nodes") | {"responseStatus": {"code": 403}}
    with path.open("ab") as file:
        file.write(half[40:] + orjson.dumps(event("1", "watch", resource="pods")) + b"\n" + orjson.dumps(refused) + b"\n")
    assert [(r.verb, r.resource) for r in log.read()] == [("get", "pods"), ("watch", "nodes")]
