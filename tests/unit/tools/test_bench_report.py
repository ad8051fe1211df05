"""The benchmark's table and its last line."""

from collections import Counter

from rich.console import Console

from tools.bench.floor import FloorRun
from tools.bench.quiet import other_control_planes
from tools.bench.report import Result, table
from tools.bench.setting import Size, workload
from tools.bench.subject import Run
from tools.bench.witness import Evidence

SIZE = Size(50, 10)


def evidence(makespan: float, patches: int) -> Evidence:
    requests = Counter({("patch", "nodes"): patches, ("watch", "pods"): 50})
    return Evidence(makespan, requests, 5, Counter({201: 100, 429: 3}), (0.1, 0.2, 0.9))


def floor(makespan: float, patches: int = 100) -> FloorRun:
    return FloorRun(evidence(makespan, patches), 0.5, {"drain-required": 30.0, "pod-restart-required": 60.0})


def run(makespan: float, patches: int = 300, memory: float | None = 70.0) -> Run:
    states = {"drain-required": (52, 40.0), "unknown": (50, 1.0)}
    return Run(evidence(makespan, patches), memory, 2.0, states, (600, 3.0))


def text(result: Result) -> str:
    console = Console(width=100, record=True, file=None, quiet=False, color_system=None)
    with console.capture() as captured:
        console.print(table(result))
    return captured.get()


def test_the_last_line_has_every_figure() -> None:
    result = Result(SIZE, [floor(10.0)], [run(11.5)])
    assert result.as_json() == {
        "nodes": 50,
        "parallel": 10,
        "makespan_s": 11.5,
        "floor_s": 10.0,
        "ratio": 1.15,
        "requests_per_node": 7.0,
        "peak_rss_mib": 70.0,
    }


def test_figures_are_medians_of_the_repetitions() -> None:
    runs = [run(30.0, 100, 90.0), run(10.0, 200, 50.0), run(11.0, 600, 60.0)]
    result = Result(SIZE, [floor(10.0), floor(8.0), floor(40.0)], runs)
    assert (result.makespan, result.floor, result.requests_per_node, result.peak_rss_mib) == (11.0, 10.0, 5.0, 60.0)


def test_memory_that_cannot_be_read_is_not_made_up() -> None:
    result = Result(SIZE, [floor(10.0)], [run(11.0, memory=None)])
    assert result.as_json()["peak_rss_mib"] is None
    assert "unknown here" in text(result)


def test_the_table_has_requests_by_verb_and_resource_and_seconds_by_state() -> None:
    shown = " ".join(text(Result(SIZE, [floor(10.0)], [run(11.5)])).replace("│", " ").split())
    assert "makespan, s 11.50 10.00" in shown
    assert "patch nodes 6.00 2.00" in shown
    assert "evictions 103 103" in shown
    assert "answered 429 3 3" in shown
    assert "half of them answered within, s 0.20 0.20 nine in ten within, s 0.90 0.90" in shown
    assert "CPU, s 2.00 0.50" in shown
    assert shown.index("unknown 0.020") < shown.index("drain-required (52 times) 0.800 0.600")
    assert "pod-restart-required 1.200" in shown, (
        "a step of the floor beside a state that no node of the controller's was in"
    )


def test_every_deployment_has_a_budget_and_together_they_have_two_pods_a_node() -> None:
    for nodes in (1, 6, 50, 200):
        objects = workload(Size(nodes, 1))
        sets = [obj for obj in objects if obj["kind"] == "Deployment"]
        budgets = [obj["metadata"]["name"] for obj in objects if obj["kind"] == "PodDisruptionBudget"]
        assert sum(each["spec"]["replicas"] for each in sets) == 2 * nodes
        assert budgets == [each["metadata"]["name"] for each in sets]


def test_another_control_plane_is_recognised_by_its_controller_manager() -> None:
    listing = """
      17 /cache/kubernetes-v1/kubernetes kube-controller-manager --kubeconfig=/tmp/x
      18 /opt/kube-controller-manager --kubeconfig=/tmp/y
      19 /cache/kubernetes-v1/kubernetes kube-scheduler --kubeconfig=/tmp/x
      20 grep -r kube-controller-manager /etc
      21
    """
    assert other_control_planes(listing) == [17, 18]
