"""The command `motionpair`. Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 sealed but a quota is not met, 130 interrupted."""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from factory.console import out_console, plainly, state, tell_error
from factory.evaluate_command import evaluate_app
from factory.generator_commands import generators_app
from factory.latents_command import adopt, latents
from factory.sample_command import sample
from factory.stopping import GRACE_S
from factory.train_command import train
from manifests.errors import BadRecipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make motion pairs: real clips in, a sealed WebDataset of reverse-driving training pairs out.",
)
app.add_typer(generators_app, name="generators")
app.add_typer(evaluate_app, name="evaluate")

RecipeArg = Annotated[str, typer.Argument(help="A recipe file, or the name of a bundled one: quickstart, motionpair-60k.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for the store, the ledger and the release.")]
ClipsOption = Annotated[str | None, typer.Option("--clips", help="Your clips (folder, file or glob) instead of the recipe's.")]
CharactersOption = Annotated[str | None, typer.Option("--characters", help="Your character pictures instead of the recipe's.")]
AddressOption = Annotated[str | None, typer.Option("--address", help="A running Ray cluster; without it Ray is started here.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Where artifacts go instead of into --out: s3://BUCKET/PREFIX or a folder.")
]


FromOption = Annotated[
    Path | None, typer.Option("--from", help="Another run's folder: its steps whose request is unchanged are taken over.")
]


@app.callback()
def root(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """Set what holds for all commands."""
    state["debug"] = debug


@app.command()
def run(
    recipe: RecipeArg,
    out: OutOption,
    clips: ClipsOption = None,
    characters: CharactersOption = None,
    address: AddressOption = None,
    store: StoreOption = None,
    source: FromOption = None,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds that what is under way has after SIGTERM.")] = GRACE_S,
) -> None:
    """Make the recipe's dataset. Asked for again, it goes on where it was."""
    from factory.progress import Progress
    from factory.run import run_recipe, with_material
    from factory.stopping import Stopped
    from manifests.recipe import load_recipe

    with plainly("Run the same command again to resume."):
        made = with_material(load_recipe(recipe), clips, characters)
        with Progress(out_console) as progress:
            try:
                result = asyncio.run(run_recipe(made, out, progress, address, store, grace, source))
            except Stopped as e:
                out_console.print(Text(f"{e}. Go on with: {shlex.join(['motionpair', *sys.argv[1:]])}"))
                raise typer.Exit(0) from None
        from factory.summary import tell_result

        tell_result(result, out_console)
    if not result.complete:
        raise typer.Exit(3)


@app.command()
def index(
    sources: Annotated[str, typer.Argument(help="A folder, file or glob of clips, or samples:clips.")],
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write.")] = Path("index.parquet"),
    frames: Annotated[int, typer.Option(help="Frames of a span, 4n+1.")] = 81,
    fps: Annotated[float, typer.Option(help="Rate of a span.")] = 16.0,
    group_by: Annotated[str, typer.Option(help="folder or clip.")] = "folder",
) -> None:
    """Look at clips: shots, spans, people and why a clip can't be used. Makes nothing."""
    from factory.index import write_index
    from factory.progress import Progress
    from factory.run import working
    from factory.summary import tell_index
    from manifests.recipe import load_recipe, parse_recipe

    with plainly():
        base = load_recipe("quickstart").model_dump(mode="json")
        base["sources"] = [{"clips": sources, "group_by": group_by}]
        base["geometry"] = {"frames": frames, "fps": fps, "sizes": [[512, 896], [896, 512], [704, 704]]}
        made = parse_recipe(base, "index")

        async def work() -> None:
            with tempfile.TemporaryDirectory(prefix="motionpair-index-") as folder:
                async with working(made, Path(folder), progress) as running:
                    found = await running.index(with_gallery=False)
                    write_index(found, out)
                    tell_index(found, out, out_console)

        with Progress(out_console) as progress:
            asyncio.run(work())


@app.command()
def plan(
    recipe: RecipeArg,
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder: its index is used, and kept for the run.")] = None,
    clips: ClipsOption = None,
    characters: CharactersOption = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Another run's folder: tell what is made again of it, by slice, and what is not.")
    ] = None,
) -> None:
    """Show the jobs by slice and split with the estimated cost. Makes no pair.

    Where the recipe's clips can be read they are indexed first (the people in them are looked at, nothing is generated).
    """
    from factory.summary import tell_plan, tell_remaking
    from generators import registry
    from manifests.recipe import load_recipe

    with plainly():
        from factory.planning import plan_of
        from factory.progress import Progress
        from factory.run import with_material

        made = with_material(load_recipe(recipe), clips, characters)
        registry.check(made, to_run=False)
        with Progress(out_console) as progress:
            planned = plan_of(made, out, progress, given=bool(clips or characters), source=source)
        tell_plan(made, planned.plan, planned.note, out_console)
        if planned.remaking:
            tell_remaking(planned.remaking, out_console)


@app.command()
def simulate(
    recipe: RecipeArg,
    gpus: Annotated[list[str] | None, typer.Option("--gpus", help="TYPE=COUNT, as H100=64; may be repeated.")] = None,
    cpus: Annotated[int | None, typer.Option("--cpus", min=1, help="CPU cores for all pools.")] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="How long; without it until the quotas are met.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="How many jobs are planned; without it more than enough.")] = None,
    seconds: Annotated[list[str] | None, typer.Option("--seconds", help="GENERATOR=S: seconds of one call; may be repeated.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A run's output folder: its measured times are taken.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn.")] = 0,
) -> None:
    """Simulate the recipe on so many GPUs: rate, how busy the pools are, days and GPU-hours to the quotas, the bottleneck."""
    from factory.simulate.report import tell
    from factory.simulate.simulation import budget_for
    from factory.simulate.simulation import simulate as simulated
    from factory.simulate.times import counts, times_of
    from generators import registry
    from manifests.recipe import load_recipe

    with plainly():
        made = load_recipe(recipe)
        registry.check(made, to_run=False)
        budget = budget_for(made, {kind: int(count) for kind, count in counts("--gpus", gpus or []).items()}, cpus)
        times = times_of(made, source, counts("--seconds", seconds or []))
        result = simulated(made, budget, times, hours, jobs, seed)
        tell(made, times, result, out_console)


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(help="A run's output folder.")],
    calls: Annotated[bool, typer.Option("--calls", help="What questions to a model cost, by role.")] = False,
    quarantine: Annotated[bool, typer.Option("--quarantine", help="What failed for good: requests, errors, last lines.")] = False,
) -> None:
    """Accepted, rejected by reason, quarantined, and what it cost."""
    from factory.status import tell_calls, tell_quarantine, tell_status

    with plainly():
        if calls and quarantine:
            raise BadRecipe("--calls and --quarantine: give one of them.")
        (tell_calls if calls else tell_quarantine if quarantine else tell_status)(folder, out_console)


@app.command()
def retry(
    folder: Annotated[Path, typer.Argument(help="A run's output folder.")],
    job: Annotated[list[str] | None, typer.Option("--job", help="A job's id, or its first letters; may be repeated.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All quarantined and undecided jobs.")] = False,
) -> None:
    """Let the next run make jobs again that were quarantined or left undecided, once their cause is mended."""
    from factory.status import retry_jobs

    with plainly():
        retry_jobs(folder, job or [], everything, out_console)


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="A release folder, or one of its revisions.")],
    decode: Annotated[bool, typer.Option(help="Also decode every video and picture.")] = True,
) -> None:
    """Check a release: digests, counts, decodability, mask colours, frame agreement, split."""
    from manifests.release import Release
    from manifests.verify import verify as verify_release

    with plainly():
        problems = verify_release(release, decode)
        for problem in problems:
            tell_error(str(problem))
        if problems:
            raise typer.Exit(1)
        info = Release.open(release).info
        inside = f"{info.reference_in_target} with a reference in the target"
        out_console.print(f"whole: revision {info.revision:04d}, {info.pairs} pairs in {len(info.shards)} shards, {inside}")


@app.command()
def fetch(what: Annotated[str, typer.Argument(help="samples")] = "samples") -> None:
    """Bring the sample clips, characters and built-in weights into the cache, by digest."""
    from factory.samples import builtin_weights, fetch_samples

    with plainly():
        if what != "samples":
            raise BadRecipe(f"fetch {what!r}: only 'samples' can be fetched.")
        with out_console.status("fetching weights") as shown:
            builtin_weights()
            if not out_console.is_terminal:
                out_console.print("fetching samples and drawing characters; the first time this takes about a minute")
            found = fetch_samples(progress=lambda name, i, count: shown.update(f"{i + 1} of {count}: {name}"))
        for name in ("clips", "characters", "scenes"):
            place: Path = getattr(found, name)
            out_console.print(Text(f"{name}: {sum(p.is_file() for p in place.rglob('*'))} files in {place}"))


@app.command()
def show(
    release: Annotated[Path, typer.Argument(help="A release folder, or one of its revisions.")],
    key: Annotated[str, typer.Argument(help="The pair's key, or its first letters.")],
    sheet: Annotated[Path, typer.Option("--sheet", help="The PNG to write.")] = Path("pair.png"),
) -> None:
    """Draw a pair: frames of driving, target and masks, and the reference, side by side."""
    from factory.summary import draw_pair

    with plainly():
        row = draw_pair(release, key, sheet)
        out_console.print(Text(f"{sheet}: {row.key}, {row.task} ({row.slice}, {row.split})"))
        out_console.print(Text(row.caption))


app.command()(latents)
app.command()(adopt)
app.command()(train)
app.command()(sample)


def main() -> None:
    """Entry point."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that can't show × or – is no reason to fail
    try:
        app()
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:  # before or after a command's own care: while modules load, or a second Ctrl-C while workers stop
        tell_error("interrupted; nothing finished is lost. Run the same command again to resume.")
        os._exit(130)


if __name__ == "__main__":
    main()
