"""Flow matching and DPO against loops and hand-made cases; operations against the published figures; configurations."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import latent_release
import pytest
import torch
from tiny_training import SMALL, lively, numbers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from factory.trainer import adapters, dpo, flow
from factory.trainer.adapters import LoraConfig
from factory.trainer.conditioning import Conditioned, Conditioning, condition
from factory.trainer.config import TrainConfig, load_config
from factory.trainer.dpo import DpoConfig
from factory.trainer.draws import Draws
from factory.trainer.flops import forward_flops, peak_of, tokens_of, training_flops
from factory.trainer.flow import Batch
from factory.trainer.model import PRESETS, Inputs, Scail2
from factory.trainer.preferences import contest
from factory.trainer.stream import Stream
from factory.trainer.train import conditioning_of
from manifests.errors import BadInput, BadRecipe


def sample(number: int = 0, history: float = 0.0, more: int = 0) -> Conditioned:
    how = Conditioning(text_drop=0, history=history, history_of_chunks=history)
    return condition(latent_release.latents(f"key{number}", "animation", 100 * number, more=more), Draws(0, f"key{number}"), how)


def batch_of(*samples: Conditioned) -> Batch:
    return flow.collate(samples, SMALL)[0]


# --- flow matching


def test_the_loss_is_the_mean_over_all_elements_of_what_is_not_masked() -> None:
    one = batch_of(sample())
    predicted = numbers(5, *one.velocity_B16THW.shape)
    expected, elements = 0.0, 0
    columns = (predicted, one.velocity_B16THW, one.loss_mask_B16THW)
    for p, v, m in zip(*(column.flatten().tolist() for column in columns), strict=True):
        expected += m * (p - v) ** 2
        elements += 1
    assert float(flow.losses(predicted, one)) == pytest.approx(expected / elements, rel=1e-5)
    assert float(one.loss_mask_B16THW.mean()) < 1  # there is lettering


def test_a_perfect_answer_leads_back_to_the_video() -> None:
    s = sample()
    one = batch_of(s)
    torch.testing.assert_close(s.noisy_20THW[:16] - s.sigma * one.velocity_B16THW[0], s.video_16THW, atol=1e-5, rtol=1e-5)
    assert float(flow.losses(one.velocity_B16THW, one)) == 0


def test_what_is_masked_teaches_nothing() -> None:
    one, model = batch_of(sample()), lively()
    changed = Batch(**{**vars(one), "velocity_B16THW": one.velocity_B16THW + 9 * (1 - one.loss_mask_B16THW)})

    def gradients(batch: Batch) -> list[torch.Tensor]:
        model.zero_grad()
        flow.losses(model(batch.inputs), batch).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    assert all(torch.equal(a, b) for a, b in zip(gradients(one), gradients(changed), strict=True))


def test_losses_are_float32_whatever_the_model_answers_in() -> None:
    one = batch_of(sample())
    answer = (one.velocity_B16THW + 1).to(torch.bfloat16)
    found = flow.losses(answer, one)
    assert found.dtype == torch.float32
    exact = ((answer.double() - one.velocity_B16THW.double()) ** 2 * one.loss_mask_B16THW).mean()
    assert float(found) == pytest.approx(float(exact), rel=1e-5)


def test_batches_have_one_shape_and_all_samples() -> None:
    samples = [sample(0), sample(1, more=1), sample(2), sample(3, more=1)]
    assert [batch.keys for batch in flow.collate(samples, SMALL)] == [("key0", "key2"), ("key1", "key3")]


def test_captions_are_padded_and_cut() -> None:
    words = numbers(0, 4, 8)
    assert torch.equal(flow.padded_words(words, SMALL), torch.cat([words, torch.zeros(2, 8)]))
    assert torch.equal(flow.padded_words(numbers(0, 9, 8), SMALL), numbers(0, 9, 8)[:6])
    with pytest.raises(BadInput, match="features of 7 channels, the model takes 8"):
        flow.padded_words(numbers(0, 4, 7), SMALL, "k")


def test_at_another_sigma_the_noise_stays() -> None:
    for s in (sample(), sample(history=1.0)):
        other = flow.at_sigma(s, 1.0)
        assert torch.equal(other.noise_16THW, s.noise_16THW)
        start = s.history_frames
        torch.testing.assert_close(other.noisy_20THW[:16, start:], s.noise_16THW[:, start:])
        assert torch.equal(other.noisy_20THW[:16, :start], s.video_16THW[:, :start])


# --- DPO


def contests() -> tuple[Batch, Batch]:
    pairs = [contest(sample(i), numbers(70 + i, 16, 2, 8, 12)) for i in range(2)]
    return batch_of(*(p.winner for p in pairs)), batch_of(*(p.loser for p in pairs))


def preferred(model: Scail2, config: DpoConfig) -> dpo.Preference:
    return dpo.preference(model, model, adapters.adapters_off(model), *contests(), config)


def with_adapters(noise: float = 0.0) -> Scail2:
    model = lively()
    adapters.add_adapters(model, LoraConfig(rank=2))
    adapters.initialise_adapters(model, 0)
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if "lora_B" in name:
                p.add_(noise * numbers(i, *p.shape))
    return model


def test_the_first_preference_loss_is_ln_2() -> None:
    found = preferred(with_adapters(), DpoConfig(sft=0))
    assert found.loss.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)
    assert found.margin.tolist() == [0, 0]
    frozen, model = lively(), lively()
    copied = dpo.preference(model, frozen, contextlib.nullcontext(), *contests(), DpoConfig(sft=0))
    assert copied.loss.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)


def test_the_loss_is_the_formula() -> None:
    model, config = with_adapters(0.1), DpoConfig(beta=3.0, sft=0.1)
    winner, loser = contests()
    found = preferred(model, config)
    for i in range(2):

        def error(side: Batch, i: int = i) -> float:
            answer_B16THW = model(side.inputs).detach()
            columns = (winner.regions_B16THW, answer_B16THW, side.velocity_B16THW, winner.loss_mask_B16THW)
            above = below = 0.0
            for region, answer, right, mask in zip(*(column[i].flatten().tolist() for column in columns), strict=True):
                above += region * mask * (answer - right) ** 2
                below += region * mask
            return above / below

        e_w, e_l = error(winner), error(loser)
        with adapters.adapters_off(model):
            ref_w, ref_l = error(winner), error(loser)
        inside = -(config.beta / 2) * ((e_w - ref_w) - (e_l - ref_l))
        supervised = float(flow.losses(model(winner.inputs), winner)[i].detach())
        assert float(found.loss[i].detach()) == pytest.approx(math.log(1 + math.exp(-inside)) + 0.1 * supervised, rel=1e-4)
        assert float(found.margin[i]) == pytest.approx((e_l - ref_l) - (e_w - ref_w), abs=1e-4)


def test_only_adapters_are_trained_and_only_by_what_lies_in_hands_and_faces() -> None:
    model = with_adapters(0.1)
    preferred(model, DpoConfig(beta=3.0, sft=0)).loss.sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
    winner, loser = contests()
    outside = 1 - winner.regions_B16THW
    same = Batch(**{**vars(winner), "velocity_B16THW": winner.velocity_B16THW})
    found = dpo.region_error(winner.velocity_B16THW + 7 * outside, same, dpo.region_weights(winner, DpoConfig()))
    assert found.tolist() == [0, 0]
    assert float(dpo.region_weights(winner, DpoConfig(elsewhere=0.5)).max()) == 1
    bare = Batch(**{**vars(loser), "regions_B16THW": torch.zeros_like(outside)})
    assert torch.equal(dpo.region_weights(bare, DpoConfig()), bare.loss_mask_B16THW)


def test_steps_raise_the_winner_above_the_loser() -> None:
    model, config = with_adapters(), DpoConfig(beta=20.0, sft=0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    before = [p.detach().clone() for p in model.parameters() if not p.requires_grad]
    for _ in range(8):
        found = preferred(model, config)
        optimizer.zero_grad()
        found.loss.sum().backward()
        optimizer.step()
    assert float(found.loss.detach().mean()) < 0.6 < math.log(2)
    assert float(found.margin.min()) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, (p for p in model.parameters() if not p.requires_grad), strict=True))


def test_sides_that_differ_in_more_than_their_video_are_refused() -> None:
    winner, loser = contests()
    given = Inputs(**{**vars(loser.inputs), "sigma_B": loser.inputs.sigma_B + 0.1})
    with pytest.raises(BadInput, match="sigma_B"):
        dpo.preference(lively(), lively(), contextlib.nullcontext(), winner, Batch(**{**vars(loser), "inputs": given}), DpoConfig())
    other = Batch(**{**vars(loser), "velocity_B16THW": loser.velocity_B16THW + 0.5})
    with pytest.raises(BadInput, match="noise"):
        dpo.preference(lively(), lively(), contextlib.nullcontext(), winner, other, DpoConfig())


def test_preference_pairs_come_from_the_stream(tmp_path: Path) -> None:
    from factory.trainer.preferences import FromPreferences

    release = latent_release.build(tmp_path, 6, preference=True)
    with Stream(release, decode=FromPreferences(Conditioning(history=1.0))) as stream:
        winner, loser = next(stream)
    assert not torch.equal(winner.video_16THW, loser.video_16THW)
    assert torch.equal(winner.noise_16THW, loser.noise_16THW)
    found = dpo.preference(lively(), lively(), contextlib.nullcontext(), batch_of(winner), batch_of(loser), DpoConfig(sft=0))
    assert float(found.loss) == pytest.approx(math.log(2), abs=1e-6)


# --- operations


def test_operations_are_the_published_ones() -> None:
    big, at_512p, at_704p = PRESETS["14b"], tokens_of(21, 64, 112), tokens_of(21, 88, 160)
    assert (at_512p.references, at_512p.video, at_512p.driving, at_512p.all) == (1792, 37632, 9408, 48832)
    assert at_704p.all == 95920
    once = forward_flops(big, at_512p)
    assert sum(once.values()) == pytest.approx(3.155e15, rel=5e-4)
    assert once["attention"] / sum(once.values()) == pytest.approx(0.62, abs=0.005)
    assert training_flops(big, at_512p) == pytest.approx(9.47e15, rel=1e-3)
    assert training_flops(big, at_704p) == pytest.approx(29.7e15, rel=1e-3)
    assert training_flops(PRESETS["1.3b"], at_512p) == pytest.approx(1.71e15, rel=5e-3)
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("some processor") is None


def test_operations_are_those_that_torch_counts() -> None:
    one, model = batch_of(sample(more=1)), lively()
    # The CPU's own attention is not counted; written out in matrix products it is.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(one.inputs)
    tokens = tokens_of(2, 8, 12, references=2)
    mine = forward_flops(SMALL, tokens)
    assert sum(mine.values()) == pytest.approx(counted.get_total_flops(), rel=0.02)


# --- configurations


def test_the_smallest_configuration_is_the_published_fine_tune(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {releases: [out/latents]}\nout: runs/first\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.optimizer.lr, config.optimizer.betas, config.optimizer.weight_decay, config.optimizer.clip) == (
        2e-6,
        (0.9, 0.95),
        1e-4,
        0.1,
    )
    assert config.model.config() == PRESETS["14b"]
    assert conditioning_of(config.draws) == Conditioning()
    assert (config.parallel.param_dtype, config.parallel.reduce_dtype) == ("bfloat16", "float32")
    assert TrainConfig.model_validate(config.model_dump() | {"objective": "dpo"}).total_steps == 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {releases: [a]}\nout: b\noptimiser: {}", "optimizer"),
        ("data: {releases: [a]}\nout: b\nmodel: {preset: 15b}", "14b"),
        ("data: {releases: [a], global_batch: 3, micro_batch: 2}\nout: b", "multiple"),
        ("out: b", "is missing"),
        ("data: {releases: [a]}\nout: b\nmodel: {preset: tiny, heads: 3}", "multiple of heads"),
        ("- a", "mapping"),
        ("a: [", "YAML"),
    ],
)
def test_mistakes_in_a_configuration_are_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(BadRecipe, match=words):
        load_config(tmp_path / "c.yaml")
