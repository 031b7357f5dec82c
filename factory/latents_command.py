"""`motionpair latents`: a release's pairs as latents, sealed as a release of their own; `motionpair adopt`: an index of others' latents."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from manifests.errors import BadRecipe


def latents(
    release: Annotated[Path, typer.Argument(help="A release folder, or one of its revisions.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the store, the ledger and the latent release.")],
    vae: Annotated[str, typer.Option(help="stand-in (no weights), a folder with an AutoencoderKLWan, or hf:OWNER/NAME.")] = "stand-in",
    text: Annotated[str, typer.Option(help="stand-in, none, a folder with umT5, or hf:OWNER/NAME.")] = "stand-in",
    image: Annotated[str, typer.Option(help="none (the reference's pixels), a folder with CLIP, or hf:OWNER/NAME.")] = "none",
    workers: Annotated[int, typer.Option(min=1, help="Ray workers.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a worker.")] = 0.0,
    accelerator: Annotated[str | None, typer.Option(help="GPU type, as Ray names it.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16, for umT5 and CLIP.")] = "float32",
    level: Annotated[int, typer.Option(min=1, max=22, help="Of zstandard; published latents have 22.")] = 22,
    seed: Annotated[int, typer.Option(min=0, help="Of the augmented driving videos.")] = 0,
    address: Annotated[str | None, typer.Option("--address", help="A running Ray cluster; without it Ray is started here.")] = None,
) -> None:
    """Encode a release once for training: latents, masks, text and picture features. Asked for again, it goes on where it was."""
    from factory.console import out_console, plainly
    from factory.latents import LatentsAsked, failures, make_latents

    asked = LatentsAsked(release, to, vae, text, image, workers, gpus, accelerator, dtype, level, seed, address)
    with plainly("Run the same command again to resume."):
        if dtype not in ("float32", "bfloat16"):
            raise BadRecipe(f"--dtype {dtype}: allowed are float32 and bfloat16.")
        with out_console.status("encoding") as shown:
            made = asyncio.run(make_latents(asked, lambda done, of: shown.update(f"encoding: {done} of {of} pairs")))
        for line in failures(made.lost):
            out_console.print(Text(line, style="red"))
        out_console.print(Text(f"steps: {made.ran} run, {made.reused} reused from earlier runs"))
        out_console.print(Text(f"{'sealed' if made.new_revision else 'unchanged'}: {made.pairs} pairs in {made.release}"))
    if made.lost:
        raise typer.Exit(3)


def adopt(
    shards: Annotated[Path, typer.Argument(help="A folder of latent shards (*.tar) with the published members.")],
    threads: Annotated[int | None, typer.Option(min=1, help="That read shards; default: one a core.")] = None,
) -> None:
    """Index latent shards that others made, so that the trainer's stream reads them. Writes one file beside them."""
    from factory.console import out_console, plainly
    from factory.trainer.published import index_shards

    with plainly():
        try:
            import torch  # noqa: F401
        except ImportError:
            raise BadRecipe("the package torch is needed here; pip install 'motionpair[trainer]'.") from None
        with out_console.status("reading") as shown:
            found = index_shards(shards, threads, lambda done, of: shown.update(f"reading: {done} of {of} shards"))
        for one in found.skipped:
            out_console.print(Text(f"left out: {' '.join(filter(None, one))}", style="red"))
        counted = ", ".join(f"{count} {task}" for task, count in found.samples.items())
        out_console.print(Text(f"indexed: {counted} in {found.shards} shards, left out {len(found.skipped)}: {found.path}"))
