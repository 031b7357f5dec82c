"""A short form of kills.py: real processes, really killed, over changing numbers of ranks."""

from pathlib import Path

from kills import build, run


def test_killed_ranks_repeat_lose_and_reorder_nothing(tmp_path: Path) -> None:
    found = run(build(tmp_path), tmp_path, kills=9)
    assert found["worlds"] == [1, 2, 4, 8]
    assert found["samples"] > 20
    assert (found["repeated"], found["lost"], found["reordered"]) == (0, 0, 0)
