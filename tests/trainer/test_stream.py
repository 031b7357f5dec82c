import itertools
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory.trainer.mix import Mix, position_of, shuffled
from factory.trainer.stream import Order, Stream, main
from manifests.errors import BadInput, Damaged
from manifests.release import Release
from manifests.sealing import write_release
from manifests.store import Store

WEIGHTS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(0, 60), min_size=1, max_size=7).filter(
    lambda d: any(d.values())
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 train pairs (of 28) and 5 for validation, of which none is left out."""
    base = tmp_path_factory.mktemp("stream")
    store = Store(base / "store")
    files = tiny.parts(store, base / "parts")
    write_release(base / "release", tiny.pairs(files, 28), store, tiny.meta())
    no_pose = [(p, block) for p, block in tiny.pairs(files, 28) if p.task != "pose" or p.split == "train"]
    write_release(base / "gap", no_pose, store, tiny.meta())
    return base


# --- the order, without any file


@given(WEIGHTS)
@example({"a": 60, "b": 20, "c": 20})
@example({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1})
@example({"a": 45742, "b": 13634, "c": 99})
@settings(max_examples=150, deadline=None)
def test_every_prefix_has_the_mix_to_within_one_sample(weights: dict[str, int]) -> None:
    mix, total = Mix(weights), sum(weights.values())
    seen: Counter[str] = Counter()
    for k in range(min(2 * mix.period, 70_000) + 1):
        for task, weight in weights.items():
            assert abs(seen[task] * total - weight * k) < total, (task, k)
        draw = mix.at(k)
        assert draw.n == seen[draw.task]
        seen[draw.task] += 1
    assert mix.counts(k + 1) == {task: seen[task] for task in mix.tasks}


def test_weights_are_reduced_and_far_positions_are_cheap() -> None:
    mix = Mix({"animation": 60, "replacement": 20, "pose": 20})
    assert (mix.weights, mix.period) == ({"animation": 3, "replacement": 1, "pose": 1}, 5)
    assert mix.at(10**15) == ("animation", 3 * 10**15 // 5)


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": 1.5}, {"a": True}, {"a": 1, "b": 10**7}])
def test_weights_that_are_none_are_refused(weights: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="mix"):
        Mix(weights)


@pytest.mark.parametrize("weights", [(3, 1, 1), (2, 1, 1), (1, 1, 1), (5, 4, 3), (10, 5, 1), (1,)])
@pytest.mark.parametrize("world_size", range(1, 17))
def test_no_rank_is_starved_and_every_position_is_taken_once(weights: tuple[int, ...], world_size: int) -> None:
    mix = Mix({str(i): w for i, w in enumerate(weights)})
    period, cycles = mix.period, 3 * mix.period
    taken = [[position_of(g, rank, world_size, period) for g in range(cycles)] for rank in range(world_size)]
    for g in range(cycles):
        assert sorted(ranks[g] for ranks in taken) == list(range(g * world_size, (g + 1) * world_size))
    for ranks in taken:
        for start in range(2 * period):  # any window, also where it does not start at a multiple of the period
            counts = Counter(mix.at(position).task for position in ranks[start : start + period])
            assert counts == mix.weights


def test_shuffles_follow_from_their_arguments_alone() -> None:
    assert sorted(shuffled(0, "pose", 0, 100)) == list(range(100))
    assert shuffled(0, "pose", 0, 8).tolist() == [7, 4, 2, 3, 0, 1, 6, 5]  # for ever, whatever numpy's version
    different = {tuple(shuffled(*args, 100)) for args in ((0, "pose", 0), (1, "pose", 0), (0, "animation", 0), (0, "pose", 1))}
    assert len(different) == 4


# --- on a release


def test_an_epoch_has_every_pair_once(folder: Path) -> None:
    release = Release.open(folder / "release")
    order = Order(release, "train", seed=3)
    drawn: dict[str, list[str]] = {}
    for k in range(500):
        row = order.at(k)
        assert row.split == "train"
        drawn.setdefault(row.task, []).append(row.key)
    for task, keys in drawn.items():
        have = sorted(row.key for row in release.rows() if row.task == task and row.split == "train")
        epochs = [keys[i : i + len(have)] for i in range(0, len(keys) - len(have) + 1, len(have))]
        assert len(epochs) > 10
        assert all(sorted(epoch) == have for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_the_order_does_not_depend_on_how_shards_are_cut(folder: Path) -> None:
    store = Store(folder / "store")
    files = tiny.parts(store, folder / "parts2")
    recut = write_release(folder / "recut", [(p, 0) for p, _ in reversed(tiny.pairs(files, 28))], store, tiny.meta())
    one, two = (Order(Release.open(path), "train", seed=1) for path in (folder / "release", recut))
    assert [one.at(k).key for k in range(200)] == [two.at(k).key for k in range(200)]


def test_samples_are_the_pairs_decoded(folder: Path) -> None:
    with Stream(folder / "release", seed=1) as stream:
        samples = list(itertools.islice(stream, 10))
    assert [s.position for s in samples] == list(range(10))
    assert Counter(s.task for s in samples) == {"animation": 6, "replacement": 2, "pose": 2}
    for s in samples:
        for video in (s.driving_THWC, s.target_THWC, s.driving_mask_THWC):
            assert (video.shape, video.dtype) == ((5, 64, 64, 3), np.uint8)
        assert np.array_equal(s.driving_mask_THWC, tiny.mask_frames(s.task, "driving"))
        assert np.array_equal(s.reference_masks[-1], tiny.mask_frames(s.task, "reference")[0])
        assert len(s.references) == len(s.reference_masks) in (1, 2)
        assert s.meta["key"] == s.key
        assert s.meta["caption"] == s.caption


def keys(folder: Path, count: int, **options: object) -> list[tuple[int, str]]:
    with Stream(folder / "release", seed=1, **options) as stream:  # type: ignore[arg-type]
        return [(s.position, s.key) for s in itertools.islice(stream, count)]


def test_threads_and_ranks_do_not_change_the_order(folder: Path) -> None:
    whole = keys(folder, 20)
    assert keys(folder, 20, threads=1, prefetch=1) == keys(folder, 20, threads=4, prefetch=9) == whole
    for world_size in (2, 5):
        parts = [keys(folder, 20 // world_size, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sorted(itertools.chain(*parts)) == whole


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (5, 5), (2, 5), (4, 3), (3, 2)])
def test_a_resumed_stream_goes_on_also_with_another_world_size(folder: Path, before: int, after: int) -> None:
    first, states = [], []
    for rank in range(before):
        with Stream(folder / "release", seed=1, rank=rank, world_size=before) as stream:
            first += [(s.position, s.key) for s in itertools.islice(stream, 3)]
            states.append(stream.state())
    assert all(state == states[0] for state in states)
    assert states[0]["position"] == 3 * before
    second, per_rank = [], []
    for rank in range(after):
        with Stream(folder / "release", seed=1, rank=rank, world_size=after) as stream:
            stream.load_state(states[0])
            per_rank.append([(s.position, s.key) for s in itertools.islice(stream, 3)])
            second += per_rank[-1]
    assert sorted(first + second) == keys(folder, 3 * (before + after))
    if before == after:
        assert per_rank[0] == keys(folder, 6, rank=0, world_size=after)[3:]


def test_a_state_of_something_else_is_refused(folder: Path) -> None:
    with Stream(folder / "release") as stream, Stream(folder / "gap") as other:
        state = stream.state()
        for harm in (other.state(), {**state, "seed": 5}, {**state, "split": "validation"}, {**state, "position": -1}, {}):
            with pytest.raises(BadInput):
                stream.load_state(harm)
        with pytest.raises(BadInput, match="release"):
            stream.load_state(other.state())


def test_a_task_without_pairs_is_told_with_a_way_out(folder: Path) -> None:
    with pytest.raises(
        BadInput, match=r"'validation' has no pairs of pose, it has: animation \(3\), replacement \(1\); .*--tasks animation,"
    ):
        Stream(folder / "gap", "validation")
    with Stream(folder / "gap", "validation", tasks=("replacement", "animation")) as stream:
        assert Counter(s.task for s in itertools.islice(stream, 8)) == {"animation": 6, "replacement": 2}
    with pytest.raises(BadInput, match="no task dance"):
        Stream(folder / "release", tasks=("dance",))


@pytest.mark.parametrize(
    "bad", [{"rank": 2, "world_size": 2}, {"rank": -1}, {"world_size": 0}, {"threads": 0}, {"prefetch": 0}, {"position": -5}]
)
def test_options_that_cannot_be_are_refused(folder: Path, bad: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        Stream(folder / "release", **bad)  # type: ignore[arg-type]


def test_closing_stops_the_threads(folder: Path) -> None:
    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("stream")]

    with Stream(folder / "release", threads=3, prefetch=8) as stream:
        assert threads() == []
        next(stream)
        assert threads()
    assert threads() == []
    with pytest.raises(StopIteration):
        next(stream)


def test_damage_is_named_and_not_skipped(folder: Path, tmp_path: Path) -> None:
    store = Store(folder / "store")
    sealed = write_release(tmp_path, tiny.pairs(tiny.parts(store, tmp_path / "p"), 15), store, tiny.meta())
    release = Release.open(sealed)
    row = Order(release, "train", 0).at(2)
    path = release.shard_path(row.shard)
    data = bytearray(path.read_bytes())
    data[row.member("target.mp4").offset + 100] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with Stream(release) as stream:
        next(stream)
        next(stream)
        for _ in range(2):
            with pytest.raises(Damaged, match=f"{row.key}.target.mp4 in shard {row.shard}"):
                next(stream)
        assert stream.state()["position"] == 2


def test_the_command_prints_a_line_per_sample(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder / "release"), "--take", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "driving 5×64×64×3" in lines[0]
    assert lines[4].endswith("mix animation 60.0% replacement 20.0% pose 20.0%")


def test_the_command_tells_errors_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder / "nothing")]) == 2
    assert main([str(folder / "gap"), "--split", "validation"]) == 2
    assert main([str(folder / "gap"), "--split", "validation", "--tasks", "animation", "--take", "2"]) == 0
    assert capsys.readouterr().err.count("\n") == 2


def test_it_runs_without_ray_or_torch(folder: Path) -> None:
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("torch", "ray", "agents", "generators")))
from factory.trainer.stream import Stream
with Stream({str(folder / "release")!r}) as stream:
    print(next(stream).key)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == Order(Release.open(folder / "release"), "train", 0).at(0).key, done.stderr
