"""A node that goes with notice: it is drained, as clouds and autoscalers do, and then removed. A real Ray with several nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from engine_parts import bad_days
from test_faults import _importable  # noqa: F401 - a fixture: workers have to find the naps


@pytest.mark.parametrize(("count", "nap_s", "notice_s"), [(24, 1.0, 6.0), (5, 7.0, 4.0)])
def test_a_preempted_node_costs_nothing_but_time(tmp_path: Path, count: int, nap_s: float, notice_s: float) -> None:
    """Naps that end before the deadline, and such that the node takes with it."""
    found = bad_days.preempted(tmp_path, count, nap_s, notice_s)
    assert (found["done"], found["quarantined"], found["lost"], found["strikes"]) == (count, 0, 0, 0), found
    assert found["on_the_node_before"] > 0, "the node had nothing to do; the test shows nothing"
    assert found["begun_there_after_notice"] == 0, found
    if nap_s < notice_s:
        assert found["moves"] == 0, found
        assert found["redone"] <= 2, "more began again than waited there, one at each of two workers"
        assert found["others_while_it_drained"] > 0, "nothing began elsewhere in the time of notice"
    else:
        assert found["redone"] == found["moves"] == 2, found
