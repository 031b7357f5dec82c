"""`motionpair evaluate`: generated videos against ground truth, and sheets for human raters."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from factory.console import out_console, plainly
from manifests.errors import BadInput, BadRecipe

MODEL_NAME = re.compile(r"[\w.+-][\w.+ -]{0,59}")


class _VideosUnlessNamed(TyperGroup):
    """`evaluate FOLDER …` means `evaluate videos FOLDER …`; a folder that is called like a command is given as ./gsb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["videos", *args]
        return list(super().parse_args(ctx, args))


evaluate_app = typer.Typer(
    cls=_VideosUnlessNamed,
    no_args_is_help=True,
    help="Generated videos against ground truth: metrics, a table and a page. `evaluate FOLDER` is short for `evaluate videos FOLDER`.",
)
gsb_app = typer.Typer(no_args_is_help=True, help="Blind good/same/bad sheets for human raters, and their scores.")
evaluate_app.add_typer(gsb_app, name="gsb")

TruthOption = Annotated[Path, typer.Option("--truth", help="A release, or a folder with KEY.mp4, KEY.driving.mp4, KEY.reference.png.")]


@evaluate_app.command()
def videos(
    truth: TruthOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for evaluation.json, per_video.parquet and .csv, index.html.")],
    generated: Annotated[Path | None, typer.Argument(help="A folder of generated videos, KEY.mp4.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="NAME=FOLDER instead, for several side by side.")] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", help="Only these, as ssim,psnr; an error when one can't be had.")] = None,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="lpips_backbone=, lpips_linear=, fvd= and a PATH or hf:…@SHA256.")
    ] = None,
    cross: Annotated[bool, typer.Option("--cross", help="Cross-identity: pose against driving, identity against reference.")] = False,
    trim: Annotated[bool, typer.Option("--trim", help="Of videos of different lengths compare the common beginning.")] = False,
    device: Annotated[str, typer.Option("--device", help="Of LPIPS and FVD: cpu, cuda, cuda:1 …")] = "cpu",
    page: Annotated[bool, typer.Option(help="Write index.html and copies of the videos.")] = True,
) -> None:
    """Measure every generated video whose key has a case. Exit code 3 when some could not be measured."""
    from factory.evaluation import backbones, cases, measure, results
    from factory.evaluation import page as pages

    with plainly():
        asked = measure.Asked(
            models={name: cases.open_generated(folder) for name, folder in _models(generated, model or []).items()},
            metrics=measure.wanted(metrics), cross=cross, trim=trim, weights=backbones.asked_for(weights or []), device=device,
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="motionpair-evaluate-") as scratch:
            opened = cases.open_truth(truth, Path(scratch))
            with out_console.status("measuring") as shown:
                found = measure.evaluate(asked, opened, lambda done, of: shown.update(f"measuring: {done} of {of} videos"))
            out.mkdir(parents=True, exist_ok=True)
            results.write(found, out)
            if page:
                pages.write(found, out)
        results.tell(found, out_console)
        out_console.print(Text(f"written: {', '.join(str(out / name) for name in _written(page))}"))
    if found.broken:
        raise typer.Exit(3)


def _written(page: bool) -> tuple[str, ...]:
    from factory.evaluation import page as pages
    from factory.evaluation import results

    return (results.SUMMARY, results.ROWS, results.ROWS_CSV, *([pages.PAGE] if page else []))


def _models(generated: Path | None, named: list[str]) -> dict[str, Path]:
    """Models by name. Raises BadRecipe when none or both ways are used, and for names that are not fit to be shown."""
    if (generated is None) == (not named):
        raise BadRecipe("give either a folder of generated videos or --model NAME=FOLDER, once or more.")
    if generated is not None:
        return {"generated": generated}
    return _pairs("--model", named)


def _pairs(option: str, texts: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not folder or not MODEL_NAME.fullmatch(name):
            raise BadRecipe(f"{option} {text}: expected NAME=FOLDER, the name of letters, digits and . + - _ up to 60.")
        if name in found:
            raise BadRecipe(f"{option} {text}: {name} is given twice.")
        found[name] = Path(folder)
    return found


@gsb_app.command()
def make(
    models: Annotated[list[str], typer.Argument(help="Two models as NAME=FOLDER; scores are the first one's against the second.")],
    out: Annotated[Path, typer.Option("--out", help="Gets the folder `sheet` for raters and, beside it, key.json, which they don't see.")],
    truth: Annotated[Path | None, typer.Option("--truth", help="Where driving videos and reference pictures are shown from.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order, of the sides and of what is drawn.")] = 0,
    count: Annotated[int | None, typer.Option("--count", min=1, help="How many comparisons; all common keys without it.")] = None,
    criterion: Annotated[list[str] | None, typer.Option("--criterion", help="What is asked; may be repeated. Default: overall.")] = None,
) -> None:
    """Make a blind sheet: an HTML page that keeps its rater's answers and exports them as CSV or JSON."""
    from factory.evaluation import cases
    from factory.evaluation.gsb import make_sheet

    with plainly(), tempfile.TemporaryDirectory(prefix="motionpair-gsb-") as scratch:
        folders = _pairs("gsb make", models)
        if len(folders) != 2:
            raise BadRecipe(f"gsb make compares two models; {len(folders)} were given.")
        shown = cases.open_truth(truth, Path(scratch)) if truth else None
        made = make_sheet(
            {n: cases.open_generated(f) for n, f in folders.items()}, shown, out, seed, count, tuple(criterion or ["overall"])
        )
        out_console.print(Text(f"{len(made.items)} comparisons of {' and '.join(made.models)} in {out / 'sheet' / 'index.html'}"))
        out_console.print(
            Text(f"give raters the folder {out / 'sheet'} and nothing else; who is on which side stands in {out / 'key.json'}")
        )


@gsb_app.command()
def score(
    answers: Annotated[list[Path], typer.Argument(help="Files that raters exported, CSV or JSON.")],
    key: Annotated[Path, typer.Option("--key", help="The sheet's key.json.")],
    out: Annotated[Path | None, typer.Option("--out", help="A JSON file for the scores.")] = None,
) -> None:
    """Good, same and bad by criterion and rater, with an interval, agreement between raters and a sign test."""
    from factory.evaluation.gsb import read_key
    from factory.evaluation.gsb_answers import read_answers
    from factory.evaluation.gsb_scores import score_answers, tell_scores, write_scores

    with plainly():
        sheet = read_key(key)
        read = read_answers(answers, sheet)
        if not read.votes:
            raise BadInput(
                f"no usable answer in {', '.join(path.name for path in answers)}: {'; '.join(read.problems) or 'they are empty'}"
            )
        scores = score_answers(read, sheet)
        tell_scores(scores, sheet, out_console)
        if out is not None:
            write_scores(scores, sheet, out)
