"""Numbers that belong to a sample: the same everywhere, spread as they should be."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from factory.trainer.draws import Draws


def digest(draws: Draws) -> str:
    parts = (draws.words("a", 5), draws.uniform("b", 7), draws.normal("noise", (3, 5, 2)).view(np.uint32))
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def test_another_process_draws_the_same_whatever_it_drew_before() -> None:
    code = """
        import hashlib, numpy as np
        from factory.trainer.draws import Draws
        Draws(0, "other").normal("noise", (1000,)); np.random.seed(3); np.random.rand(5)
        draws = Draws(4, "sample", 2)
        draws.normal("else", (9,))
        parts = (draws.words("a", 5), draws.uniform("b", 7), draws.normal("noise", (3, 5, 2)).view(np.uint32))
        print(hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(Draws(4, "sample", 2))


def test_the_words_stay_for_ever() -> None:
    """Philox 4×64 under a key of ours; a change of these breaks every run that is to be resumed."""
    assert [hex(word) for word in Draws(0, "key").words("noise", 2)] == EXPECTED
    assert Draws(0, "key").words("noise", 2).tolist() == Draws(0, "key").words("noise", 9)[:2].tolist()


EXPECTED = ["0xed96d8855d15ce18", "0x752e7fff14f14351"]


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_the_outermost_words_stay_within_0_and_1(word: int) -> None:
    class Outermost(Draws):
        def words(self, purpose: str, count: int) -> np.ndarray:
            return np.full(count, word, np.uint64)

    draws = Outermost(0, "key")
    assert 0 < draws.uniform("u", 1)[0] < 1
    assert draws.chance("x", 1.0)
    assert not draws.chance("x", 0.0)
    assert np.isfinite(draws.normal("z", (4,))).all()


def test_seed_sample_epoch_and_purpose_each_change_everything() -> None:
    some = [Draws(0, "a", 0), Draws(1, "a", 0), Draws(0, "b", 0), Draws(0, "a", 1)]
    found = {draws.words(purpose, 1)[0] for draws in some for purpose in ("noise", "sigma")}
    assert len(found) == 8


def test_they_are_spread_as_they_should_be() -> None:
    draws = Draws(1, "spread")
    u = draws.uniform("u", 100_000)
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005
    z = draws.normal("z", (100_001,))
    assert z.dtype == np.float32
    assert abs(z.mean()) < 0.015
    assert abs(z.std() - 1) < 0.01
    assert abs((np.abs(z) < 1).mean() - 0.6827) < 0.006
    assert abs(np.corrcoef(z[:50_000], z[50_001:])[0, 1]) < 0.02  # the two halves of Box and Muller's pairs


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 2000), (0.1, 200), (0.56, 1120)])
def test_chances_come_as_often_as_they_should(probability: float, expected: int) -> None:
    hits = sum(Draws(0, f"sample {i}").chance("x", probability) for i in range(2000))
    assert abs(hits - expected) <= 4 * (2000 * probability * (1 - probability)) ** 0.5
