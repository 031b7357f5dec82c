"""The plan: quotas and attempts of the big recipe, order, split, shortlists, step keys. No clip is read here."""

from __future__ import annotations

import ast
import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from running import call

from factory import steps
from factory.asked import Asked
from factory.plan import Blocks, PlannedSpan, block_count, block_of, make_plan, side_of, split_gallery, suits
from factory.work.clips import ReferenceRequest, find_reference
from factory.work.making import AnimateRequest, generate_video
from factory.work.spans import SpanInfo
from generators import registry, weights
from manifests.errors import BadRecipe
from manifests.recipe import Slice, SplitSpec, load_recipe, parse_recipe
from manifests.records import Artifact, Candidate, Figure, Framing, Geometry, Person, Span, digest_of

RECIPES = Path(__file__).parents[2] / "manifests" / "recipes"


def span_info(number: int, people: int = 1, motion: float = 0.5, framing: Framing = "full", yaw: float = 10) -> SpanInfo:
    geometry = Geometry(frames=81, height=512, width=896)
    span = Span(source=digest_of(["clip", number]), start_frame=0, geometry=geometry, crop=(0, 0, 896, 512))
    figure = Figure(framing=framing, yaw_deg=yaw, visible_joints=("nose", "left_hip"), motion=motion)
    return SpanInfo(span=span, shot=(0, 200), figures=(figure,) * people)


def candidate(number: int, role: str = "character", group: str | None = None, yaw: float = 0.0) -> Candidate:
    person = Person(
        track=0, box=(0, 0, 1, 1), presence=1, framing="full", visible_joints=(), yaw_deg=yaw, yaw_spread_deg=0, height=1, motion=0,
        arms_crossed=False, confidence=1,
    )  # fmt: skip
    return Candidate.model_validate(
        {"picture": digest_of([role, number]), "role": role, "group": group or f"g{number}", "split": "train",
         "person": person if role == "character" else None}
    )  # fmt: skip


def planned(count: int) -> list[PlannedSpan]:
    return [PlannedSpan(info=span_info(n), group=f"group{n // 3}", licence="cc0") for n in range(count)]


def test_the_big_recipe_plans_the_published_quotas() -> None:
    printed = call("plan", "manifests/recipes/motionpair-60k.yaml")
    for quota in ("31,895", "13,847", "9,249", "4,385", "100,000"):
        assert quota in printed
    plan = make_plan(load_recipe("motionpair-60k"), [], [])
    assert {p.name: p.attempts for p in plan.slices} == {
        "scail_animation": 63_790, "wan_animation": 23_079, "mocha_single": 15_415, "mocha_multi": 10_963, "pose_extraction": 111_112,
    }  # fmt: skip
    hours = {p.name: p.gpu_hours for p in plan.slices}
    assert hours["scail_animation"] == pytest.approx(63_790 * 720 / 3600)
    assert hours["wan_animation"] is hours["mocha_single"] is hours["mocha_multi"] is None
    assert hours["pose_extraction"] == 0
    assert "unknown" in printed


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_bundled_recipes_load_and_fit_their_generators(path: Path) -> None:
    registry.check(load_recipe(path), to_run=False)


def test_the_plan_depends_on_neither_order_nor_other_clips() -> None:
    recipe = load_recipe("quickstart")
    gallery = [candidate(n) for n in range(6)]
    spans = planned(20)
    whole = make_plan(recipe, spans, gallery)
    assert make_plan(recipe, spans[::-1], gallery[::-1]) == whole
    fewer = {job.id: job for job in make_plan(recipe, spans[:13], gallery).jobs}
    more = {job.id: job for job in whole.jobs}
    assert fewer
    # What becomes of the shortlists is told in test_shortlist.py.
    assert all(replace(more[id_], shortlist=()) == replace(job, shortlist=()) for id_, job in fewer.items())
    ranks = [job.rank for job in whole.slices[0].jobs]
    assert ranks == sorted(ranks)


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, min_size=2, max_size=30), st.floats(0.05, 0.9), st.integers(0, 1000))
def test_a_larger_share_of_validation_only_adds_groups(groups: list[str], share: float, seed: int) -> None:
    def held_out(fraction: float) -> set[str]:
        return {g for g in groups if side_of(g, seed, SplitSpec(validation_fraction=fraction)) == "validation"}

    assert held_out(0) == set() <= held_out(share / 2) <= held_out(share)
    named = SplitSpec(validation_fraction=share, validation_groups=(groups[0],))
    assert side_of(groups[0], seed, named) == "validation"
    assert all(side_of(g, seed, named) == side_of(g, seed, SplitSpec(validation_fraction=share)) for g in groups[1:])


def test_a_group_of_pictures_is_on_one_side_whatever_their_roles() -> None:
    for seed in range(60):
        gallery = [candidate(n, role, f"g{n % 5}") for n in range(6) for role in ("character", "clothing", "scene")]
        gallery += [candidate(9, "clothing", "g9")]
        sides: dict[str, set[str]] = {}
        for c in split_gallery(gallery, seed, SplitSpec(validation_fraction=0.05)):
            sides.setdefault(c.group, set()).add(c.split)
        assert all(len(side) == 1 for side in sides.values()), (seed, sides)
        assert set().union(*sides.values()) == {"train", "validation"}


def test_a_picture_of_a_held_out_clips_group_is_held_out_too() -> None:
    spec = SplitSpec(validation_fraction=0, validation_groups=("held_out",))
    gallery = [candidate(0, group="held_out"), candidate(1, group="shown"), candidate(2)]
    split = {c.group: c.split for c in split_gallery(gallery, 1, spec)}
    assert split == {"held_out": "validation", "shown": "train", "g2": "train"}


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({"people": 1}, True), ({"people": "2..6"}, False), ({"motion": "high"}, True), ({"motion": "low"}, False),
        ({"framing": "close"}, False), ({"framing": ["full", "half"]}, True), ({"yaw_max_deg": 5}, False), ({"motion": "0.4..0.6"}, True),
    ],
)  # fmt: skip
def test_conditions(where: dict[str, object], fits: bool) -> None:
    part = Slice.model_validate({"task": "animation", "generator": "g", "quota": 1, "where": where})
    assert suits(span_info(0), part) is fits
    assert suits(span_info(0, yaw=-10), part) is fits, "the side somebody is turned to is no condition"


@settings(max_examples=30)
@given(st.integers(0, 10))
def test_blocks_follow_the_job_alone(power: int) -> None:
    blocks = 1 << power
    ids = [digest_of(n) for n in range(200)]
    assert all(0 <= block_of(i, blocks) < blocks for i in ids)
    assert all(block_of(i, blocks) % (blocks // 2 or 1) == block_of(i, blocks // 2 or 1) for i in ids), "a finer cut splits blocks"


def test_the_number_of_blocks_comes_from_the_recipe() -> None:
    recipe = load_recipe("motionpair-60k")
    part = recipe.slices["scail_animation"]
    count = block_count(recipe, part)
    assert count & (count - 1) == 0
    larger = recipe.model_copy(update={"release": recipe.release.model_copy(update={"shard_mb": 4096})})
    assert block_count(larger, part) == count // 4


def test_no_two_slices_share_a_block() -> None:
    recipe = load_recipe("quickstart")
    plan = make_plan(recipe, planned(40), [candidate(n) for n in range(8)])
    blocks = Blocks(recipe)
    of_slice = {part.name: {blocks.of(job) for job in part.jobs} for part in plan.slices}
    assert all(of_slice.values())
    assert len(set().union(*of_slice.values())) == sum(map(len, of_slice.values()))
    assert max(set().union(*of_slice.values())) < sum(block_count(recipe, part) for part in recipe.slices.values())


def animate(**change: object) -> AnimateRequest:
    """A request; the arguments replace its fields."""
    geometry = Geometry(frames=9, height=64, width=64)
    video, arrays = (Artifact(digest=digest_of(n), size=1, suffix=s) for n, s in ((1, ".mp4"), (2, ".npz")))
    base = AnimateRequest(
        kind="puppet", options={}, mode="animation", clip_video=video, clip=arrays, driven=(0,), painted=(video,), prompt="p",
        geometry=geometry, seed=1,
    )  # fmt: skip
    return base.model_copy(update=change)


OTHER = Artifact(digest=digest_of("other"), size=1, suffix=".mp4")
CHANGES: dict[str, object] = {
    "kind": "skeleton", "options": {"fps": 30.0}, "mode": "replacement", "clip_video": OTHER, "clip": OTHER, "driven": (1,),
    "painted": (), "views": ((digest_of("side"),),), "scene": OTHER, "prompt": "q",
    "geometry": Geometry(frames=13, height=64, width=64), "seed": 2,
}  # fmt: skip


def test_every_field_of_a_request_changes_its_key() -> None:
    assert set(CHANGES) == set(AnimateRequest.model_fields), "say of each field whether it must change the key"
    key = steps.key_of(generate_video, animate())
    keys = {name: steps.key_of(generate_video, animate(**{name: value})) for name, value in CHANGES.items()}
    assert key not in keys.values()
    assert len(set(keys.values())) == len(keys)


def test_pools_prices_and_timeouts_are_in_no_request() -> None:
    never = {"pool", "timeout_s", "seconds_per_pair", "gpus", "accelerator", "price", "path", "host"}
    steps.named("cut")
    for step in steps.STEPS.values():
        assert not never & set(step.request.model_fields), step.name


@contextlib.contextmanager
def edited(module: str) -> Iterator[None]:
    """With another line in a module's source."""
    real = steps._source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "_source", lambda name: (real(name) or "") + "\nX = 1\n" if name == module else real(name))
        for cached in (steps.code_digest, steps._module):
            cached.cache_clear()
        yield
    for cached in (steps.code_digest, steps._module):
        cached.cache_clear()


def changed_by(module: str) -> set[str]:
    """The steps whose code is another one when a module is edited."""
    steps.named("cut")
    chosen = [s for s in steps.STEPS.values() if ":" not in s.name]
    before = {s.name: steps.code_digest(s.modules) for s in chosen}
    with edited(module):
        return {s.name for s in chosen if steps.code_digest(s.modules) != before[s.name]}


TRACKING = {"index_clip", "index_picture", "analyze", "find_reference", "find_painted", "measure_picture", "measure_video"}
"""whose tool is the tracker"""


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("agents.brains.builtin", {"ask_rules"}),  # neither the checks nor the animator nor the analysis
        ("generators.poses.people", TRACKING),
        ("generators.poses.blazepose", {*TRACKING, "find_boxes"}),  # the text finder compares boxes as it does
        ("generators.masks.refine", TRACKING),
        ("generators.poses.details", {"analyze", "measure_picture", "measure_video"}),  # the checker compares hands
        ("generators.poses.lettering", {"find_boxes"}),
        ("agents.measures.identity", {"measure_picture", "measure_video"}),
        ("agents.measures.safety", {"measure_picture", "measure_video"}),
    ],
)
def test_code_in_the_key_is_the_steps_own_its_tools_and_what_they_import(module: str, changed: set[str]) -> None:
    assert changed_by(module) == changed


def test_a_tools_weights_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    request = ReferenceRequest.model_construct()
    before = steps.key_of(find_reference, request)
    for name in steps.TRACKER.weights:
        with monkeypatch.context() as patch:
            patch.setitem(weights.WEIGHTS, name, weights.WEIGHTS[name].model_copy(update={"sha256": "0" * 64}))
            assert steps.key_of(find_reference, request) != before, name


def test_a_step_declares_every_tool_that_its_module_takes_from_the_bench() -> None:
    """Within a module of steps only what uses `bench.tracker` and the like may lead to a step without a declaration."""
    steps.named("cut")
    for step in (s for s in steps.STEPS.values() if s.module in steps.WORK_MODULES):
        source = inspect.getsource(step.run)
        used = {tool for name, tools in steps.TOOLS.items() if f"bench.{name}" in source for tool in tools}
        assert used == set(step.tools), step.name


@pytest.mark.parametrize("module", ["generators.poses.people", "generators.base"])
def test_a_finished_job_stands_on_the_tools_and_on_what_the_users_generator_imports(module: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text((Path(__file__).parent / "own" / "misbehaving.py").read_text())
    text = yaml.safe_load((RECIPES / "quickstart.yaml").read_text())
    text["generators"] = {"own": {"kind": f"{own}:Ticker"}}
    text["slices"] = {"poses": {"task": "pose", "generator": "own", "quota": 1}}
    text.pop("mix", None)
    recipe = parse_recipe(text)
    (job,) = make_plan(recipe, planned(1), []).jobs[:1]
    before = Asked(recipe, "").of(job)
    assert Asked(recipe, "").of(job) == before
    with edited(module):
        assert Asked(recipe, "").of(job) != before


def test_comments_and_docstrings_repeat_no_work() -> None:
    told = '"""About."""\n# why\ndef f():\n    """What."""\n\n    return 1\n'
    shapes = [steps.shape_of(ast.parse(text)) for text in ('""""""\ndef f():\n    """"""\n    return 1\n', told, told.replace("1", "2"))]
    assert shapes[0] == shapes[1] != shapes[2]


def test_every_mistake_has_its_line() -> None:
    part = {"task": "pose", "generator": "g", "quota": "many"}
    data = {"recipe": "x", "seed": 1, "sources": [{"clips": "a", "grup_by": "clip"}], "generators": {}, "slices": {"a": part}}
    with pytest.raises(BadRecipe) as caught:
        parse_recipe(data)
    assert [line.split(":")[1].strip() for line in str(caught.value).splitlines()] == ["sources.0.grup_by", "slices.a.quota"]


@pytest.mark.parametrize("brain", ["{kind: builtin}", "{kind: openai, base_url: 'http://x/v1', model: m, price_in: 0.4}"])
def test_a_recipe_reads_what_it_wrote(brain: str) -> None:
    base = load_recipe("quickstart").model_dump(mode="json")
    made = parse_recipe(base | {"agents": {"brain": yaml.safe_load(brain)}})
    assert parse_recipe(made.model_dump(mode="json")) == made
