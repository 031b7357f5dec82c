"""The order of the stream, without any file."""

import math
import time
from collections import Counter
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factory.trainer.catalog import Shape
from factory.trainer.mix import Mix, with_shapes
from factory.trainer.permute import key_of, mixed, permuted
from factory.trainer.schedule import Schedule, shape_weights
from manifests.errors import BadInput

MIX = {"animation": 60, "replacement": 20, "pose": 20}
SMALL, LARGE = Shape(81, 512, 896), Shape(81, 704, 1280)
WEIGHTS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(0, 60), min_size=1, max_size=7).filter(
    lambda d: any(d.values())
)


def shelf(sizes: dict[Shape, int], content: str = "c0") -> SimpleNamespace:
    """What the schedule needs to know of a task's pairs."""
    ranges, start = {}, 0
    for shape in sorted(sizes):
        ranges[shape] = (start, start + sizes[shape])
        start += sizes[shape]
    catalog = SimpleNamespace(info=SimpleNamespace(content=content), url=content)

    class Pairs(SimpleNamespace):
        def __len__(self) -> int:
            return start

    return Pairs(ranges=ranges, catalog=catalog)


def schedule(sizes: dict[str, int], seed: int = 0, mix: dict[str, int] | None = None) -> Schedule:
    order = Mix(mix or MIX)
    return Schedule(order, [shelf({SMALL: sizes[task]}) for task, _ in order.sources], seed)  # type: ignore[misc]


# --- shares


@given(WEIGHTS)
@example({"a": 60, "b": 20, "c": 20})
@example({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1})
@example({"a": 45742, "b": 13634, "c": 99})
@settings(max_examples=150, deadline=None)
def test_every_prefix_has_the_mix_to_within_one_sample_and_every_window_to_within_two(weights: dict[str, int]) -> None:
    mix, total = Mix(weights), sum(weights.values())
    length = min(2 * mix.period, 70_000)
    sources, draws = mix.at(np.arange(length))
    for number, (task, _) in enumerate(mix.sources):
        counts = np.concatenate([[0], np.cumsum(sources == number)])
        ahead = counts * total - weights[task] * np.arange(length + 1)
        assert np.abs(ahead).max() < total
        assert ahead.max() - ahead.min() < 2 * total
        assert np.array_equal(draws[sources == number], np.arange(counts[-1]))
        assert mix.counts(length)[number] == counts[-1]
        assert mix.task_errors()[task].prefix < 1


def test_the_usual_mix_is_within_one_sample_in_every_window_too() -> None:
    mix = Mix(MIX)
    assert all(errors.prefix < 1 and errors.window < 1 for errors in mix.task_errors().values())
    sources, _ = mix.at(np.arange(10**6))
    for number, share in enumerate((0.6, 0.2, 0.2)):
        counts = np.concatenate([[0], np.cumsum(sources == number)])
        assert np.abs(counts - share * np.arange(10**6 + 1)).max() < 1
        for window in (*range(1, 40), 4096, 99_999):
            assert np.abs(counts[window:] - counts[:-window] - share * window).max() < 1


@given(st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(1, 6), min_size=1, max_size=3)), min_size=1, max_size=4))
@example([(60, [3, 2]), (20, [1, 2]), (20, [1])])
@settings(max_examples=150, deadline=None)
def test_tasks_stay_exact_when_they_have_several_sources(parts: list[tuple[int, list[int]]]) -> None:
    mix = Mix({str(i): weight for i, (weight, _) in enumerate(parts)}, {str(i): within for i, (_, within) in enumerate(parts)})
    assert all(errors.prefix < 1 and errors.window < 2 for errors in mix.task_errors().values())
    total = sum(weight for weight, _ in parts)
    for number, (task, i) in enumerate(mix.sources):
        weight, within = parts[int(task)]
        share = weight / total * within[i] / sum(within)
        assert mix.per_period[number] == pytest.approx(share * mix.period)
        assert mix.errors([number]).prefix < 1.1  # below 1 but for about one mix in a thousand


@pytest.mark.parametrize("sources", [{"animation": [3, 2]}, {"animation": [2, 1, 1], "pose": [1, 4]}, {"animation": [31895, 13847]}])
def test_sources_of_usual_mixes_are_within_one_sample(sources: dict[str, list[int]]) -> None:
    mix = Mix(MIX, sources)
    assert all(mix.errors([i]).prefix < 1 for i in range(mix.count))


def test_weights_are_reduced_and_far_positions_are_cheap() -> None:
    mix = Mix(MIX)
    assert (mix.weights, mix.period) == ({"animation": 3, "replacement": 1, "pose": 1}, 5)
    sources, draws = mix.at([10**15])
    assert (sources[0], draws[0]) == (0, 3 * 10**15 // 5)


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": 1.5}, {"a": True}, {"a": 1, "b": 10**7}])
def test_weights_that_are_none_are_refused(weights: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="mix"):
        Mix(weights)


# --- permutations


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=80, deadline=None)
def test_permutations_are_permutations(n: int, key: int) -> None:
    assert np.array_equal(np.sort(permuted(np.arange(n), n, key)), np.arange(n))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutations_of_a_few_are_as_likely(n: int) -> None:
    keys = mixed(key_of("test", n), np.arange(12_000))
    drawn = Counter(zip(*(permuted(np.full(len(keys), i), n, keys).tolist() for i in range(n)), strict=True))
    expected = len(keys) / math.factorial(n)
    chi2 = sum((drawn[order] - expected) ** 2 / expected for order in permutations(range(n)))
    freedom = math.factorial(n) - 1
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom) + 5


def test_shuffles_stay_what_they_are() -> None:
    """A change here changes the order of every stream: a checkpoint of an older version would go on in another order."""
    assert permuted(np.arange(10), 10, key_of("order", 0)).tolist() == GOLDEN
    assert schedule({"animation": 7, "replacement": 2, "pose": 3}).at(np.arange(12)).pair.tolist() == GOLDEN_PAIRS


GOLDEN = [5, 7, 6, 9, 0, 1, 3, 4, 2, 8]
GOLDEN_PAIRS = [6, 3, 1, 5, 1, 2, 4, 0, 1, 0, 0, 2]


# --- pairs


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_sources_of_unequal_size_wrap_with_epochs_of_their_own(a: int, b: int, c: int, seed: int) -> None:
    sizes = {"animation": a, "replacement": b, "pose": c}
    order = schedule(sizes, seed)
    places = order.at(np.arange(5 * (a + b + c) * 3))
    for number, (task, _) in enumerate(order.mix.sources):
        mine = places.source == number
        pairs, epochs = places.pair[mine], places.epoch[mine]
        assert np.array_equal(epochs, np.arange(len(pairs)) // sizes[task])
        for epoch in range(int(epochs[-1])):
            assert sorted(pairs[epochs == epoch].tolist()) == list(range(sizes[task]))
        assert len(set(places.seed[mine].tolist())) == len(pairs)
        if sizes[task] > 8 and epochs[-1] >= 2:
            assert pairs[epochs == 0].tolist() != pairs[epochs == 1].tolist()


def test_a_position_is_the_same_alone_and_among_others() -> None:
    order = schedule({"animation": 45742, "replacement": 13634, "pose": 100_000})
    many = order.at(np.arange(10**9, 10**9 + 50))
    for i in range(50):
        assert all(one[0] == all_[i] for one, all_ in zip(order.at(10**9 + i), many, strict=True))


def test_another_seed_gives_another_order_of_the_same_shares() -> None:
    sizes = {"animation": 50, "replacement": 20, "pose": 20}
    one, two = schedule(sizes, 0).at(np.arange(100)), schedule(sizes, 1).at(np.arange(100))
    assert np.array_equal(one.source, two.source)
    assert (one.pair != two.pair).sum() > 80
    assert (one.seed != two.seed).all()


def test_the_order_is_fast() -> None:
    order = schedule({"animation": 45742, "replacement": 13634, "pose": 100_000})
    began = time.process_time()
    order.at(np.arange(10**12, 10**12 + 100_000))
    assert time.process_time() - began < 1


# --- ranks


@pytest.mark.parametrize("weights", [(3, 1, 1), (2, 1, 1), (1, 1, 1), (5, 4, 3), (10, 5, 1), (1,)])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 6, 8, 10, 15, 16])
@pytest.mark.parametrize("unit", [1, 3])
def test_ranks_take_every_unit_once_and_each_task_at_its_share(weights: tuple[int, ...], world_size: int, unit: int) -> None:
    mix = {str(i): w for i, w in enumerate(weights)}
    order = schedule(dict.fromkeys(mix, 9), mix=mix)
    period = order.mix.task_period
    turn = world_size * period // math.gcd(period, world_size * unit)
    steps = np.arange(2 * turn)
    units_RS = np.stack([order.unit_of(steps, rank, world_size, unit) for rank in range(world_size)])
    assert np.array_equal(np.sort(units_RS, 0), steps * world_size + np.arange(world_size)[:, None])
    positions_RSU = units_RS[..., None] * unit + np.arange(unit)
    for rank in range(world_size):
        for first in (0, turn):
            sources, _ = order.mix.at(positions_RSU[rank, first : first + turn].ravel())
            counts = np.bincount(sources, minlength=len(weights))
            assert np.array_equal(counts * sum(weights), np.array(weights) * turn * unit)


def test_shares_of_ranks_over_5000_steps() -> None:
    order = schedule({"animation": 100, "replacement": 100, "pose": 100})
    worst = 0.0
    for world_size in range(1, 65):
        for rank in sorted({0, 1, world_size // 2, world_size - 1} & set(range(world_size))):
            sources, _ = order.mix.at(order.unit_of(np.arange(5000), rank, world_size))
            worst = max(worst, float(np.abs(np.bincount(sources, minlength=3) / 5000 - (0.6, 0.2, 0.2)).max()))
    assert worst < 0.02


def test_no_rank_locks_onto_a_task_whose_period_is_the_world_size() -> None:
    order = schedule({"animation": 100, "replacement": 100, "pose": 100})
    for rank in range(5):
        sources, _ = order.mix.at(order.unit_of(np.arange(100), rank, 5))
        repeats = [len(run) for run in "".join(map(str, sources)).replace("1", " ").replace("2", " ").split()]
        assert max(repeats) < 15
        assert set(sources.tolist()) == {0, 1, 2}


# --- shapes


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 6), WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_blocks_have_one_shape_and_every_task_every_shape_at_its_share(block: int, small: int, large: int, weights: dict[str, int]) -> None:
    mix = Mix(weights)
    pattern = with_shapes(mix, [small, large], block)
    cells, draws = pattern.at(np.arange(pattern.period))
    shapes = (cells % 2).reshape(-1, block)
    assert (shapes == shapes[:, :1]).all()
    plain, _ = mix.at(np.arange(pattern.period))
    assert np.array_equal(cells // 2, plain)  # the mix is not touched
    counts = pattern.per_period.reshape(-1, 2)
    assert np.array_equal(counts[:, 0] * large, counts[:, 1] * small)
    for cell in range(pattern.count):
        assert np.array_equal(draws[cells == cell], np.arange(pattern.per_period[cell]))


def test_each_pair_of_a_shape_comes_once_an_epoch() -> None:
    mix = Mix(MIX)
    shelves = [shelf({SMALL: 12, LARGE: 5}), shelf({SMALL: 4, LARGE: 9}), shelf({SMALL: 7, LARGE: 1})]
    weights = shape_weights(shelves, mix, 4, None)  # type: ignore[arg-type]
    assert weights == {SMALL: round(60 * 12 / 17 + 20 * 4 / 13 + 20 * 7 / 8), LARGE: round(60 * 5 / 17 + 20 * 9 / 13 + 20 / 8)}
    order = Schedule(mix, shelves, 0, weights, 4)  # type: ignore[arg-type]
    places = order.at(np.arange(4000))
    for number, cell in enumerate(order.cells):
        pairs = places.pair[places.cell == number]
        for first in range(0, len(pairs) - cell.size + 1, cell.size):
            assert sorted(pairs[first : first + cell.size].tolist()) == list(range(cell.start, cell.start + cell.size))


def test_shapes_that_a_task_lacks_are_refused_with_what_all_have() -> None:
    shelves = [shelf({SMALL: 12, LARGE: 5}), shelf({SMALL: 4}), shelf({SMALL: 7})]
    assert shape_weights(shelves, Mix(MIX), 1, None) is None  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="replacement in c0 has no pairs of 81x704x1280, it has 81x512x896; shapes of all: 81x512x896"):
        shape_weights(shelves, Mix(MIX), 2, None)  # type: ignore[arg-type]
    assert shape_weights(shelves, Mix(MIX), 2, {"81x512x896": 1}) == {SMALL: 1}  # type: ignore[arg-type]
    for bad in ({}, {"81x512x896": 0}, {"81x512": 1}, {"81x512x-896": 1}):
        with pytest.raises(BadInput):
            shape_weights(shelves, Mix(MIX), 2, bad)  # type: ignore[arg-type]


# --- replacing


@pytest.mark.parametrize("shapes", [None, {SMALL: 1, LARGE: 1}])
def test_a_replacement_is_the_next_of_its_source_and_shape(shapes: dict[Shape, int] | None) -> None:
    mix = Mix({"a": 1})
    order = Schedule(mix, [shelf({SMALL: 90, LARGE: 70})], 3, shapes)  # type: ignore[list-item]
    places = order.at(np.arange(160))
    for position in (0, 17, 159):
        cell, draw, pair = int(places.cell[position]), int(places.draw[position]), int(places.pair[position])
        others = list(order.after(cell, draw))
        same = range(90) if pair < 90 else range(90, 160)
        assert sorted([*others, pair]) == list(same)
        later = (places.cell == cell) & (places.epoch == 0) & np.isin(places.pair, same) & (np.arange(160) > position)
        assert others[: later.sum()] == places.pair[later].tolist()
