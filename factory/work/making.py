"""Steps that make pixels: the painted picture and the synthetic (or rendered) video."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from factory.steps import step
from factory.workbench import Workbench
from generators.base import ImageGenerator, ImageRequest, Mode, Report, VideoGenerator, VideoRequest, scene_beside
from manifests import media
from manifests.containers import is_plain
from manifests.errors import BadInput
from manifests.records import Artifact, Digest, Frozen, Geometry


class PaintRequest(Frozen):
    """All that may change a painted picture."""

    kind: str
    options: dict[str, JsonValue]
    pictures: dict[str, Digest]
    """role → gallery picture"""
    prompt: str
    negative: str
    scale: float
    geometry: Geometry
    clip: Artifact
    """People arrays of the clip"""
    person: int
    """track of the person to be replaced"""
    mode: Mode
    seed: int


class Painted(Frozen):
    picture: Artifact
    scene: Artifact | None
    """the same without the character, where the generator knows it"""
    report: Report


@step(depth=4)
def generate_image(request: PaintRequest, bench: Workbench) -> Painted:
    """A new character for one person of the clip."""
    generator = bench.generator(request.kind, dict(request.options))
    if not isinstance(generator, ImageGenerator):
        raise BadInput(f"{request.kind} paints no pictures", "mode_unsupported")
    asked = ImageRequest(
        pictures={role: bench.clip(digest) for role, digest in sorted(request.pictures.items())},
        prompt=request.prompt, negative=request.negative, scale=request.scale, geometry=request.geometry,
        clip_people=bench.people(request.clip).only([request.person]), mode=request.mode, seed=request.seed,
    )  # fmt: skip
    out = bench.folder / "painted.png"
    report = generator.make(asked, out)
    behind = scene_beside(out)
    scene = bench.keep(behind, ".png") if behind.exists() else None
    return Painted(picture=bench.keep(out, ".png"), scene=scene, report=report)


class AnimateRequest(Frozen):
    """All that may change a synthetic video."""

    kind: str
    options: dict[str, JsonValue]
    mode: Mode
    clip_video: Artifact
    clip: Artifact
    """People arrays of the clip"""
    driven: tuple[int, ...]
    painted: tuple[Artifact, ...]
    views: tuple[tuple[Digest, ...], ...] = ()
    """further gallery pictures of each painted character"""
    scene: Artifact | None = None
    """of the first painted picture, without the character"""
    prompt: str
    geometry: Geometry
    seed: int


class Synthetic(Frozen):
    video: Artifact
    """at the pair's geometry"""
    raw_frames: int
    raw_fps: float
    report: Report


@step(depth=6)
def generate_video(request: AnimateRequest, bench: Workbench) -> Synthetic:
    """The characters perform the clip's motion. What the generator wrote is brought to the pair's geometry by timestamp, and to the one
    coding that a release has."""
    generator = bench.generator(request.kind, dict(request.options))
    if not isinstance(generator, VideoGenerator):
        raise BadInput(f"{request.kind} makes no videos", "mode_unsupported")
    everybody = bench.people(request.clip)
    others = [i for i in range(everybody.count) if i not in request.driven]
    asked = VideoRequest(
        mode=request.mode, clip=bench.file(request.clip_video), clip_people=everybody.only(list(request.driven)),
        painted=tuple(bench.file(a) for a in request.painted), prompt=request.prompt, geometry=request.geometry, seed=request.seed,
        views=tuple(tuple(bench.clip(d) for d in digests) for digests in request.views),
        scene=bench.file(request.scene) if request.scene else None, others=everybody.only(others) if others else None,
    )  # fmt: skip
    raw = bench.folder / "raw.mp4"
    report = generator.make(asked, raw)
    probe, out = media.probe(raw), raw
    if not _is_as_released(raw, probe, request.geometry):
        out = bench.folder / "synthetic.mp4"
        media.conform(raw, out, request.geometry)
    return Synthetic(video=bench.keep(out, ".mp4"), raw_frames=probe.frames, raw_fps=round(probe.fps, 4), report=report)


def _is_as_released(video: Path, seen: media.Probe, geometry: Geometry) -> bool:
    """Whether a video is already of this geometry, in the one coding that all decoders read alike, and without words about its making."""
    fits = (seen.frames, seen.width, seen.height) == (geometry.frames, geometry.width, geometry.height)
    return fits and abs(seen.fps - geometry.fps) <= 1e-3 and is_plain(video)
