"""Every metric against something that does not come from our own code: closed forms, slow references, published properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from moving import walkers
from videos import blurred, scene, write

from factory.evaluation import backbones, fvd, lpips, metrics, pixels, statistics, vmaf
from factory.evaluation.alignment import align
from factory.evaluation.cases import Case
from factory.evaluation.frechet import frechet_distance, frechet_of
from factory.evaluation.people import poses
from manifests.errors import BadInput, BadRecipe

torch.set_num_threads(2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random weights with the names and shapes of the published ones."""
    folder = tmp_path_factory.mktemp("weights")
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.05

    widths = {"0": (64, 3, 11), "3": (192, 64, 5), "6": (384, 192, 3), "8": (256, 384, 3), "10": (256, 256, 3)}
    backbone = {f"features.{n}.weight": drawn(o, i, k, k) for n, (o, i, k) in widths.items()}
    backbone |= {f"features.{n}.bias": drawn(o) for n, (o, _, _) in widths.items()}
    torch.save(backbone | {"classifier.6.bias": drawn(1000)}, folder / "alexnet.pth")
    linear = {f"lin{i}.model.1.weight": drawn(1, o, 1, 1).abs() for i, (o, _, _) in enumerate(widths.values())}
    torch.save(linear, folder / "alex.pth")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        torch.jit.script(RandomI3D()).save(str(folder / "i3d.pt"))
    return {"lpips_backbone": str(folder / "alexnet.pth"), "lpips_linear": f"file:{folder / 'alex.pth'}", "fvd": str(folder / "i3d.pt")}


class RandomI3D(torch.nn.Module):
    """Takes what the published network takes; its features are random."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.mix = torch.nn.Parameter(torch.randn(3 * 4 * 7 * 7, 12, generator=generator))

    def forward(self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> torch.Tensor:
        assert (rescale, resize, return_features) == (False, False, True)
        assert x.shape[1:] == (3, 16, 224, 224)
        assert x.abs().max() <= 1
        return torch.nn.functional.adaptive_avg_pool3d(x, (4, 7, 7)).flatten(1) @ self.mix


def seen(made: np.ndarray, true: np.ndarray, folder: Path) -> metrics.Seen:
    pair = align(write(folder, "made.mp4", made), write(folder, "true.mp4", true))
    return metrics.Seen(Case("k"), pair, False)


# --- SSIM and PSNR


def slow_ssim(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """Window by window, from the formula of Wang et al. 2004."""
    at = np.arange(-5, 6)
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    found = []
    for c in range(3):
        a, b = a_HWC[..., c].astype(float), b_HWC[..., c].astype(float)
        for y in range(5, a.shape[0] - 5):
            for x in range(5, a.shape[1] - 5):
                p, q = a[y - 5 : y + 6, x - 5 : x + 6], b[y - 5 : y + 6, x - 5 : x + 6]
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * p * p).sum() - mean_p**2, (window * q * q).sum() - mean_q**2
                both = (window * p * q).sum() - mean_p * mean_q
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                found.append((2 * mean_p * mean_q + c1) * (2 * both + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2)))
    return float(np.mean(found))


def test_ssim_is_the_formula_window_by_window() -> None:
    true_THWC = scene(1, frames=1, height=24, width=32)
    made_THWC = blurred(true_THWC, 1.5)
    assert pixels.ssim(made_THWC, true_THWC) == pytest.approx(slow_ssim(made_THWC[0], true_THWC[0]), abs=1e-9)
    assert pixels.ssim(true_THWC, true_THWC) == 1


def test_psnr_has_no_overflow_and_a_ceiling() -> None:
    """Differences of uint8 wrap round: a published tool did just that."""
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)
    assert pixels.psnr(black, grey) == pytest.approx(20 * np.log10(255 / 200))
    assert pixels.psnr(grey, black) == pixels.psnr(black, grey)
    assert pixels.psnr(grey, grey) == pixels.PSNR_MAX_DB


def test_a_frame_below_the_window_has_psnr_and_a_reason(tmp_path: Path) -> None:
    true_THWC = np.zeros((1, 16, 16, 3), np.uint8)
    whole = seen(true_THWC, true_THWC, tmp_path)
    cut = metrics.Seen(whole.case, whole.pair.__class__(true_THWC[:, :8], true_THWC[:, :8], 16.0, ()), False)
    assert pixels.PixelMeter().measure(cut) == {"psnr": 100.0, "ssim": "smaller than SSIM's window of 11 px"}


# --- VMAF


def test_vmaf_falls_with_blur_and_is_high_for_the_same() -> None:
    true_THWC = scene(2, frames=3, height=96, width=128)
    figures = [vmaf.vmaf(made, true_THWC, 16.0) for made in (true_THWC, blurred(true_THWC, 0.8), blurred(true_THWC, 3))]
    assert figures[0] > 95
    assert figures == sorted(figures, reverse=True)
    assert figures[2] < figures[0] - 20


# --- LPIPS


def test_lpips_is_the_definition_layer_by_layer(weights: dict[str, str]) -> None:
    """Against plain functions on the same random weights, one image and one layer after the other."""
    found = {name: backbones.bring(name, weights[name]) for name in lpips.NEEDS}
    a_THWC, b_THWC = scene(3, frames=2, height=72, width=80), scene(4, frames=2, height=72, width=80)
    ours = lpips.distance(lpips.network(found), a_THWC, b_THWC)
    state, linear = (torch.load(found[name].path, weights_only=True) for name in lpips.NEEDS)
    steps = (("0", 4, 2, False), ("3", 1, 2, True), ("6", 1, 1, True), ("8", 1, 1, False), ("10", 1, 1, False))
    total = 0.0
    for a, b in zip(a_THWC, b_THWC, strict=True):
        x, y = (
            (torch.tensor(i / 127.5 - 1).permute(2, 0, 1)[None].float() - torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
            / torch.tensor([0.458, 0.448, 0.450])[:, None, None]
            for i in (a, b)
        )
        for layer, (name, stride, padding, pooled) in enumerate(steps):
            if pooled:
                x, y = (torch.nn.functional.max_pool2d(z, 3, 2) for z in (x, y))
            x, y = (
                torch.relu(torch.nn.functional.conv2d(z, state[f"features.{name}.weight"], state[f"features.{name}.bias"], stride, padding))
                for z in (x, y)
            )
            u, v = (z / (z.norm(dim=1, keepdim=True) + 1e-10) for z in (x, y))
            total += float((((u - v) ** 2) * linear[f"lin{layer}.model.1.weight"]).sum(1).mean())
    assert ours == pytest.approx(total / 2, rel=1e-4)
    assert ours > 0
    assert lpips.distance(lpips.network(found), a_THWC, a_THWC) == 0


def test_a_meter_with_weights_measures_and_says_what_it_used(weights: dict[str, str], tmp_path: Path) -> None:
    meter = lpips.LpipsMeter(weights)
    assert meter.lacking() == ""
    assert meter.used == {name: backbones.bring(name, weights[name]).sha256 for name in lpips.NEEDS}
    true_THWC = scene(5, height=64, width=80)
    values = meter.measure(seen(blurred(true_THWC, 4), true_THWC, tmp_path))
    assert isinstance(values["lpips"], float)
    assert values["lpips"] > 0
    small = np.zeros((1, 32, 32, 3), np.uint8)
    assert meter.measure(seen(small, small, tmp_path)) == {"lpips": "smaller than AlexNet's 63 px"}


# --- FVD


def test_frechet_distance_of_normals_whose_distance_is_known() -> None:
    """One dimension: (μ₁ − μ₂)² + (σ₁ − σ₂)². Diagonal: the sum of those. Commuting: only the eigenvalues count."""
    one = frechet_of(np.array([1.0]), np.array([[4.0]]), np.array([3.5]), np.array([[9.0]]))
    assert one == pytest.approx(2.5**2 + 1)
    s, t = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    assert frechet_of(np.zeros(3), np.diag(s**2), np.ones(3), np.diag(t**2)) == pytest.approx(3 + ((s - t) ** 2).sum())
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = frechet_of(np.zeros(3), rotation @ np.diag(s**2) @ rotation.T, np.zeros(3), rotation @ np.diag(t**2) @ rotation.T)
    assert turned == pytest.approx(((s - t) ** 2).sum())


def test_frechet_distance_against_a_matrix_root() -> None:
    """The usual implementation: scipy's root of the product, which is not symmetric."""
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 8)), 1 + rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    slow = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert frechet_distance(a, b) == pytest.approx(float(slow), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_frechet_distance_with_fewer_samples_than_features() -> None:
    a = np.random.default_rng(3).normal(size=(4, 50))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 50, rel=1e-6)
    with pytest.raises(ValueError, match="N ≥ 2"):
        frechet_distance(a[:1], a)


def test_fvd_through_a_torchscript_network(weights: dict[str, str], tmp_path: Path) -> None:
    meter = fvd.FvdMeter(weights)
    assert meter.lacking() == ""
    for number in range(2):
        true_THWC = scene(number, frames=35)
        for model, made in (("same", true_THWC), ("blurred", blurred(true_THWC, 4))):
            got = seen(made, true_THWC, tmp_path)
            assert meter.add(model, metrics.Seen(Case(f"k{number}"), got.pair, False)) == ""
    keys = ("k0", "k1")
    assert (meter.clips("same", keys), meter.clips("same", ("k0",))) == (4, 2)
    same, other = meter.result("same", keys), meter.result("blurred", keys)
    assert isinstance(same, float)
    assert isinstance(other, float)
    assert same < 0.05 * other
    short = scene(9, frames=15)
    assert meter.add("same", seen(short, short, tmp_path)) == "shorter than a clip of 16 frames"
    assert meter.result("same", ()) == "needs two clips of 16 frames"


# --- weights


def test_weights_that_are_not_there_or_not_these_are_refused_in_one_line(weights: dict[str, str], tmp_path: Path) -> None:
    assert lpips.LpipsMeter({}).lacking() == "no weights: give --weights lpips_backbone=WHERE --weights lpips_linear=WHERE"
    (tmp_path / "junk.pth").write_bytes(b"no weights at all")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    cases = [
        ({"fvd": str(tmp_path / "gone.pt")}, fvd.FvdMeter, "no file"),
        ({"fvd": str(tmp_path / "junk.pth")}, fvd.FvdMeter, "holds no TorchScript"),
        ({"fvd": weights["fvd"] + "@" + "0" * 64}, fvd.FvdMeter, "asked was 000000000000"),
        ({"fvd": "hf:someone/i3d/i3d.pt"}, fvd.FvdMeter, "needs its digest"),
        ({"fvd": "hf:i3d.pt@" + "0" * 64}, fvd.FvdMeter, "no file of a hub"),
        ({**weights, "lpips_backbone": str(tmp_path / "junk.pth")}, lpips.LpipsMeter, "holds no state dict"),
        ({**weights, "lpips_backbone": str(tmp_path / "other.pth")}, lpips.LpipsMeter, "does not fit"),
        ({**weights, "lpips_linear": str(tmp_path / "other.pth")}, lpips.LpipsMeter, "has no lin0"),
    ]
    for given, meter, words in cases:
        with pytest.raises(BadInput, match=words) as refused:
            meter(given).lacking()
        assert "\n" not in str(refused.value)
    for text in ("i3d=x", "fvd", "fvd="):
        with pytest.raises(BadRecipe, match="allowed are lpips_backbone=WHERE"):
            backbones.asked_for([text])
    assert backbones.asked_for(["fvd=a=b"]) == {"fvd": "a=b"}


# --- pose


def test_pose_of_the_same_motion_is_right_and_of_a_lost_person_wrong() -> None:
    driver = walkers(2)
    same = poses(driver, driver, (0, 1))
    assert (same["pose_presence"], same["pose_pck"], same["pose_limb_deg"]) == (1, 1, pytest.approx(0, abs=0.1))
    lost = poses(driver, driver, (0, -1))
    assert lost == {"pose_presence": 0, "pose_pck": 0, "pose_limb_deg": 180, "pose_motion": 0}


# --- summaries


def test_the_interval_is_the_same_every_time_and_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    first = statistics.summarise([1.0, 2.0, 4.0, 8.0])
    assert first == statistics.summarise([1.0, 2.0, 4.0, 8.0])
    assert (first.mean, first.median, first.n) == (3.75, 3.0, 4)
    covered = sum(low <= 0 <= high for low, high in (statistics.interval(rng.normal(size=40)) for _ in range(200)))
    assert 0.88 <= covered / 200 <= 0.99
    assert statistics.summarise([2.0]).low is None
    assert statistics.summarise([]).n == 0
