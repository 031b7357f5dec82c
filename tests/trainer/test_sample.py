"""Sampling: chunks, history, solvers, guidance."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from made_pairs import made
from tiny_training import SMALL, lively, numbers

from factory.trainer import weights
from factory.trainer.conditioning import marked
from factory.trainer.draws import Draws
from factory.trainer.model import Inputs, build
from factory.trainer.positions import positions
from factory.trainer.sample import Given, Sampling, chunks, sampled, sampled_latents, shift_of
from factory.trainer.sampling import load_for_sampling
from factory.trainer.vae import BlockTransformStandIn
from manifests.errors import BadInput

H, W, T = 8, 12, 3
GIVEN = Given("animation", numbers(1, 16, 1, H, W), numbers(2, 28, 1, H, W), numbers(3, 6, 8), numbers(4, 6, 8))
DRIVING, MASK = numbers(5, 16, T, H // 2, W // 2), numbers(6, 28, T, H // 2, W // 2)


@drawn(st.integers(1, 700), st.sampled_from([9, 17, 81]))
def test_chunks_cover_every_frame_once_and_share_five(frames: int, chunk: int) -> None:
    made_frames = 0
    for number, (first, last, kept) in enumerate(chunks(frames, chunk)):
        assert (last - first) % 4 == 1
        assert last - first <= chunk
        assert first == (made_frames - 5 if number else 0)
        assert 0 < kept <= last - first - (5 if number else 0)
        made_frames += kept
    assert made_frames == frames


def slow_euler(model: torch.nn.Module, how: Sampling, history: torch.Tensor | None = None) -> torch.Tensor:
    """Steps written out: x moves by the velocity times the change of σ."""
    x = torch.from_numpy(Draws(how.seed, "sample").normal("chunk 0", (16, T, H, W)))
    shift = shift_of(H, W)
    raw = [1 - i / how.steps for i in range(how.steps)]
    sigmas = [shift * u / (1 + (shift - 1) * u) for u in raw] + [0.0]
    for now, then in itertools.pairwise(sigmas):
        shown = marked(x, 0.0)
        if history is not None:
            shown[:16, :2], shown[16:, :2] = history, 1
        answers = []
        for words in (GIVEN.words_LC, GIVEN.no_words_LC):
            inputs = Inputs(
                shown[None], marked(GIVEN.references_16RHW, 1.0)[None], marked(DRIVING, 1.0)[None],
                torch.cat([GIVEN.reference_masks_28RHW, torch.zeros(28, T, H, W)], 1)[None], MASK[None],
                torch.tensor([now]), words[None], None, (positions("animation", 0),),
            )  # fmt: skip
            answers.append(model(inputs)[0].detach())
        x = x + (then - now) * (answers[1] + how.guidance * (answers[0] - answers[1]))
    if history is not None:
        x[:, :2] = history
    return x


@pytest.mark.parametrize("history", [None, numbers(9, 16, 2, H, W)])
def test_euler_with_guidance_and_history(history: torch.Tensor | None) -> None:
    model, how = lively(), Sampling(steps=4, solver="euler", guidance=3.0, seed=5)
    found = sampled_latents(model, GIVEN, DRIVING, MASK, how, history)
    torch.testing.assert_close(found, slow_euler(model, how, history), atol=1e-4, rtol=1e-4)


def test_both_solvers_come_to_the_same_in_many_steps() -> None:
    model = lively()
    one, other = (
        sampled_latents(model, GIVEN, DRIVING, MASK, Sampling(steps=60, solver=solver, guidance=1.0)) for solver in ("euler", "unipc")
    )
    assert float((one - other).square().mean().sqrt()) < 0.05 * float(one.std())
    again = sampled_latents(model, GIVEN, DRIVING, MASK, Sampling(steps=60, guidance=1.0))
    assert torch.equal(again, other)


def test_a_long_video_has_all_frames_and_goes_on_from_what_was_shown() -> None:
    pair, vae = made(), BlockTransformStandIn()
    driving = np.concatenate([pair.driving_THWC, pair.driving_THWC[::-1]])[:14]
    mask = np.concatenate([pair.driving_mask_THWC, pair.driving_mask_THWC[::-1]])[:14]
    given = dataclasses.replace(
        GIVEN, references_16RHW=numbers(1, 16, 1, 8, 12), reference_masks_28RHW=numbers(2, 28, 1, 8, 12), words_LC=numbers(3, 6, 8)
    )
    how = Sampling(steps=2, guidance=1.0, chunk=9)
    video = sampled(lively(), given, driving, mask, vae, how)
    assert video.shape == driving.shape
    first = sampled(lively(), given, driving[:9], mask[:9], vae, how)
    assert np.array_equal(video[:9], first)


def test_published_weights_are_sampled_from_and_others_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("factory.trainer.model", fromlist=["PRESETS"]).PRESETS, "small", SMALL)
    model = lively()
    weights.save(model.state_dict(), tmp_path / "m.safetensors", "float32")
    loaded = load_for_sampling(tmp_path / "m.safetensors", "small")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(BadInput, match="no preset"):
        load_for_sampling(tmp_path / "m.safetensors", "huge")
    with pytest.raises(BadInput, match="no checkpoint"):
        load_for_sampling(tmp_path)
    with pytest.raises(BadInput, match="4n"):
        list(chunks(9, 8))
    assert build(SMALL, device="meta").config == SMALL
