"""Metrics of the controller as a tool reads them."""

from tools.controllerprocess import difference, parsed

TEXT = """\
# HELP driver_upgrade_evictions_total Answers.
# TYPE driver_upgrade_evictions_total counter
driver_upgrade_evictions_total{outcome="evicted"} 27.0
driver_upgrade_evictions_total{outcome="budget"} 2.0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.5
"""


def test_samples_are_found_by_name_and_labels() -> None:
    samples = parsed(TEXT)
    assert samples["driver_upgrade_evictions_total"][("outcome", "evicted"),] == 27
    assert samples["process_cpu_seconds_total"] == {(): 1.5}


def test_growth_counts_what_was_not_there_before_from_nought() -> None:
    before = parsed('driver_upgrade_evictions_total{outcome="evicted"} 20.0\n')
    grown = difference(before, parsed(TEXT))
    assert grown["driver_upgrade_evictions_total"] == {(("outcome", "evicted"),): 7, (("outcome", "budget"),): 2}
