"""`motionpair sample`: a video from a checkpoint, a reference and a driving video."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from rich.text import Text

from manifests.records import Mode, mode_of


def sample(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder, one of its checkpoints, or published weights (.safetensors).")],
    to: Annotated[Path, typer.Option("--to", help="The video that is written (.mp4).")],
    reference: Annotated[list[Path] | None, typer.Option(help="A picture; several times: the main one first.")] = None,
    reference_mask: Annotated[list[Path] | None, typer.Option(help="Its colour mask; one each.")] = None,
    driving: Annotated[Path | None, typer.Option(help="A video; sides are multiples of 32.")] = None,
    driving_mask: Annotated[Path | None, typer.Option(help="Its colour mask, lossless.")] = None,
    caption: Annotated[str, typer.Option(help="What the video shows, at length.")] = "",
    task: Annotated[str, typer.Option(help="animation or replacement.")] = "animation",
    release: Annotated[Path | None, typer.Option(help="Take all of it from a pair of this pixel release instead.")] = None,
    key: Annotated[str | None, typer.Option(help="Which pair; default: the first.")] = None,
    preset: Annotated[str | None, typer.Option(help="Size of published weights; default 14b.")] = None,
    vae: Annotated[str, typer.Option(help="stand-in, or a folder with an AutoencoderKLWan; as in training.")] = "stand-in",
    text: Annotated[str, typer.Option(help="stand-in, or a folder with umT5.")] = "stand-in",
    image: Annotated[str, typer.Option(help="none, or a folder with CLIP.")] = "none",
    steps: Annotated[int, typer.Option(min=1)] = 40,
    solver: Annotated[str, typer.Option(help="unipc or euler.")] = "unipc",
    guidance: Annotated[float, typer.Option(min=1, help="1: without; half the time.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    ema: Annotated[bool, typer.Option("--ema", help="The running mean of the weights.")] = False,
) -> None:
    """Sample a video. Long ones are made in chunks of 81 frames that share five."""
    from factory.console import out_console, plainly
    from manifests.errors import BadRecipe

    with plainly(), ExitStack() as stack:
        try:
            import torch

            from factory.trainer.sample import Sampling
            from factory.trainer.sampling import Asked, Encoders, load_for_sampling, make_video
        except ImportError as error:
            raise BadRecipe(f"sampling needs the package {error.name}; pip install 'motionpair[trainer]'.") from None
        from manifests import media

        if release is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="motionpair-")))
            task, caption, references, reference_masks, driving, driving_mask = _of_pair(release, key, folder)
        else:
            references, reference_masks = reference or [], reference_mask or []
        if task not in ("animation", "replacement", "pose") or solver not in ("unipc", "euler"):
            raise BadRecipe(f"--task {task} --solver {solver}: allowed are animation or replacement, and unipc or euler.")
        if not references or len(references) != len(reference_masks) or driving is None or driving_mask is None:
            raise BadRecipe("give --reference and --reference-mask (as many), --driving and --driving-mask, or --release.")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        how = Sampling(steps, cast(Literal["unipc", "euler"], solver), guidance, seed)
        asked = Asked(
            task=cast(Mode, task), references=tuple(references), reference_masks=tuple(reference_masks), driving=driving,
            driving_mask=driving_mask, caption=caption, encoders=Encoders(vae, text, image), how=how,
        )  # fmt: skip
        frames = make_video(load_for_sampling(checkpoint, preset, device, ema), asked, device)
        to.parent.mkdir(parents=True, exist_ok=True)
        media.write_video(to, frames, media.probe(driving).fps)
        out_console.print(Text(f"{to}: {len(frames)} frames of {frames.shape[2]}×{frames.shape[1]}"))


def _of_pair(release: Path, key: str | None, folder: Path) -> tuple[str, str, list[Path], list[Path], Path, Path]:
    """Task, caption and files of a pair, written to a folder."""
    from manifests.errors import BadInput
    from manifests.release import Release

    opened = Release.open(release)
    row = next((row for row in opened.rows() if key in (None, row.key)), None)
    if row is None:
        raise BadInput(f"{release} has no pair {key}; motionpair verify lists them")
    for member in row.members:
        (folder / member.name).write_bytes(opened.read_member(row, member.name))
    meta = json.loads((folder / "json").read_text())
    pictures, coloured = ([folder / name for name in names] for names in (row.references, row.reference_masks))
    return mode_of(row.task), meta["caption"], pictures, coloured, folder / "driving.mp4", folder / "driving_mask.mp4"
