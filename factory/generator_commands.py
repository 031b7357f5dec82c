"""`motionpair generators`: what there is, whether it can run here, and whether it keeps the contract."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from factory.console import out_console, plainly
from manifests.errors import BadRecipe

if TYPE_CHECKING:
    from generators.base import Capabilities, Generator
    from generators.conformance import Sample
    from generators.poses.extractor import Facts
    from manifests.recipe import GeneratorSpec, Recipe

generators_app = typer.Typer(no_args_is_help=True, help="The kinds of generators: what they can do, and whether they keep the contract.")
MARKS = {"held": "ok", "broken": "BROKEN", "not asked": "–"}


@dataclass(frozen=True)
class Row:
    """One generator, as it is listed."""

    name: str
    sort: str
    can: Capabilities
    licences: str
    here: str


@generators_app.command("list")
def list_(
    recipe: Annotated[str | None, typer.Argument(help="A recipe: its own entries are listed too.")] = None,
) -> None:
    """All generators with what they can do, the licences of code and weights, and whether they can run here."""
    from generators import registry
    from manifests.recipe import load_recipe

    with plainly():
        rows = [_known(kind) for kind in dict.fromkeys([*registry.BUILTIN, *registry.OF_IMAGES])]
        if recipe is not None:
            rows += [_entry(name, spec) for name, spec in load_recipe(recipe).generators.items()]
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for heading in ("name", "sort", "makes", "limits", "licence of code / weights", "runs here"):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(row.name, row.sort, ", ".join(sorted(row.can.modes)), limits(row.can), row.licences, row.here)
        out_console.print(table)
        out_console.print(Text("\nextractors: who finds people in clips, and draws their masks"))
        out_console.print(_extractors(load_recipe(recipe) if recipe is not None else None))


@generators_app.command()
def check(
    name: Annotated[str, typer.Argument(help="A kind, path/gen.py:Class, or with --recipe the name of an entry.")],
    weights: Annotated[str | None, typer.Option("--weights", help="Given to the generator as its option `weights`.")] = None,
    options: Annotated[str, typer.Option("--options", help="Its options as they would stand in a recipe: '{fps: 30}'.")] = "{}",
    recipe: Annotated[str | None, typer.Option("--recipe", help="A recipe that has an entry of this name.")] = None,
    clip: Annotated[Path | None, typer.Option("--clip", help="A clip of people to try it on, instead of a sample.")] = None,
) -> None:
    """Run the conformance kit on a generator, with a short clip. Exit code 1 when it breaks a rule."""
    from generators import conformance, registry

    with plainly(), tempfile.TemporaryDirectory(prefix="motionpair-check-") as folder:
        kind, given = _asked(name, weights, options, recipe)
        made = registry.create(kind, given)
        lacking = made.missing(made.options) + [f"the sample has no {what} of people" for what in sorted(made.can.needs)]
        if lacking:
            raise BadRecipe(f"{name} can't run here: {', '.join(lacking)}.")
        sample = _sample(made, clip, Path(folder))
        found = conformance.examine(lambda: registry.create(kind, given), sample, Path(folder) / "kit")  # type: ignore[arg-type,return-value]
        for one in found:
            words = one.words or conformance.RULES[one.rule]
            out_console.print(Text(f"{MARKS[one.state]:6}  {one.rule:17}{words}"))
        broken = [one.rule for one in found if one.state == "broken"]
        out_console.print(Text(f"{name}: breaks {', '.join(broken)}" if broken else f"{name} keeps the contract"))
        if broken:
            raise typer.Exit(1)


def limits(can: Capabilities) -> str:
    """What a generator can do beside its modes, in a line."""
    out = [f"up to {can.people_max} people" if can.people_max > 1 else "one person"] if "image" not in can.modes else []
    out += [", ".join(sorted(can.roles))] if can.roles else []
    out += [f"{' or '.join(map(str, can.frame_counts))} frames"] if can.frame_counts else []
    out += [f"{can.frame_step}n+1 frames"] if can.frame_step > 1 else []
    out += [f"nothing below {can.frames_min} frames"] if can.frames_min > 1 else []
    out += [f"{can.frames_max} frames at once"] if can.frames_max else []
    if can.frame_counts or can.frames_max:
        out.append("longer in segments" if can.segments else "nothing longer")
    out += [f"{can.fps:g} fps"] if can.fps else []
    out += [" or ".join(f"{h}×{w}" for h, w in can.sizes)] if can.sizes else []
    out += [f"sizes in multiples of {can.size_multiple}"] if can.size_multiple > 1 else []
    out += ["sizes of its own"] if can.own_size else []
    out += ["turned like the reference"] if can.orientation == "reference" else []
    out += [f"{can.gpus:g} GPU{'s' if can.gpus > 1 else ''}"] if can.gpus else ["CPU"]
    out += [f"needs {', '.join(sorted(can.needs))}"] if can.needs else []
    out += [f"derives {', '.join(sorted(can.inputs))}"] if can.inputs else []
    out += ["deterministic"] if can.deterministic else []
    return ", ".join(out)


def _known(kind: str) -> Row:
    from generators import registry

    cls = registry.class_of(kind)
    if kind in registry.OF_IMAGES:
        both = cls.capabilities.modes | registry.class_of(kind, {"modes": ["image"]}).capabilities.modes
        can = cls.capabilities.model_copy(update={"modes": both})
        return Row(kind, "command", can, "as its entry says", "as its entry says")
    sort = "service" if cls.paid else "model" if cls.requires or cls.capabilities.gpus else "built-in"
    return Row(kind, sort, cls.capabilities, _licences(cls.capabilities, cls), _here(cls.missing()))


def _entry(name: str, spec: GeneratorSpec) -> Row:
    from generators import registry

    can = registry.capabilities_of(spec)
    made = registry.create(spec.kind, spec.options)
    sort = "yours" if ".py:" in spec.kind else f"entry: {spec.kind}"
    here = _here(made.missing(made.options))
    to_accept = registry.licences_to_accept(can, made.weights) if not spec.accept_licence else []
    return Row(name, sort, can, _licences(can, type(made)), f"{here}, once accept_licence is true" if to_accept and here == "yes" else here)


def _extractors(recipe: Recipe | None) -> Table:
    """All kinds, and those of the recipe as it has them."""
    from generators import extractors

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("name", "sort", "makes", "needs", "licence of code / weights", "runs here"):
        table.add_column(heading, overflow="fold")

    def add(name: str, sort: str, facts: Facts, lacking: list[str], accepted: bool = False) -> None:
        more = f"; {', '.join(sorted(facts.gives))}" if facts.gives else ""
        ask = facts.accept_licence and not accepted
        here = _here(lacking)
        licence = f"{facts.code_licence} / {facts.weights_licence}" + (" (to be accepted)" if facts.accept_licence else "")
        needs = f"{facts.gpus:g} GPU" if facts.gpus else "CPU"
        late = "yes, once accept_licence is true" if ask and recipe is not None and here == "yes" else here
        table.add_row(name, sort, facts.what + more, needs, licence, late)

    for sort in extractors.SORTS:
        for kind in extractors.KINDS[sort]:
            cls = extractors.class_of(sort, kind)
            add(kind, sort, cls.facts, cls.missing())
    for sort in extractors.SORTS if recipe is not None else ():
        assert recipe is not None
        spec = getattr(recipe.extractors, sort)
        missing = extractors.class_of(sort, spec.kind).missing(extractors.options_of(sort, spec.kind, spec.options))
        add(f"{recipe.recipe}: {spec.kind}", sort, extractors.facts_of(sort, spec), missing, spec.accept_licence)
    return table


def _here(lacking: list[str]) -> str:
    return f"no: {', '.join(lacking)}" if lacking else "yes"


def _licences(can: Capabilities, cls: type[Generator] | None = None) -> str:
    from generators.weights import WEIGHTS
    from generators.workers.declared import Declared

    ours = cls is not None and cls.__module__.startswith("generators.") and not issubclass(cls.options_type, Declared)
    code = can.code_licence or ("Apache-2.0" if ours else "not named")
    known = ", ".join(sorted({WEIGHTS[name].licence for name in cls.weights})) if cls is not None else ""
    weights = can.weights_licence or known or ("none" if ours else "not named")
    return f"{code} / {weights}" + (" (to be accepted)" if can.accept_licence else "")


def _asked(name: str, weights: str | None, options: str, recipe: str | None) -> tuple[str, dict[str, Any]]:
    """The kind and its options."""
    import yaml

    from manifests.explain import nearest
    from manifests.recipe import load_recipe

    kind, given = name, {}
    if recipe is not None:
        entries = load_recipe(recipe).generators
        if name not in entries:
            raise BadRecipe(f"{recipe} has no generator {name!r}{nearest(name, entries)}")
        kind, given = entries[name].kind, entries[name].options
    try:
        more = yaml.safe_load(options)
    except yaml.YAMLError as e:
        raise BadRecipe(f"--options is no YAML: {' '.join(str(e).split())}") from None
    if not isinstance(more, dict):
        raise BadRecipe(f"--options takes a mapping such as '{{fps: 30}}', got {options!r}.")
    return kind, {**given, **more, **({"weights": weights} if weights is not None else {})}


def _sample(made: Generator, clip: Path | None, folder: Path) -> Sample:
    """Two people in a room, and two drawn characters."""
    from factory.samples import fetch_samples
    from generators import conformance

    with out_console.status("fetching samples"):
        samples = fetch_samples()
    pictures = sorted(samples.characters.glob("drawn-*/mannequin-*@front.png"))[:2]
    source = clip or samples.clips / "lab" / "multi-cam01.mp4"
    return conformance.sample_of(source, pictures, conformance.sample_geometry(made.can), folder)
