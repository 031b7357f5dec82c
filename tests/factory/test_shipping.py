"""The user's own generator file: every worker, on whichever node, runs the text that the driver has read. A real Ray with several nodes."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from engine_parts import ours
from own.telling import TellRequest, Told, tell

from factory.steps import Charge, key_of
from generators import registry, shipped
from manifests.errors import BadRecipe
from manifests.recipe import GeneratorSpec

ROOT = Path(__file__).parents[2]
SOURCE = """
from __future__ import annotations

import dataclasses

from generators.base import Capabilities, Report, VideoGenerator


@dataclasses.dataclass
class Word:
    text: str


class Talking(VideoGenerator):
    capabilities = Capabilities(modes=frozenset({"pose"}))

    def word(self):
        return Word("first").text

    def run(self, request, out):
        raise RuntimeError("it only talks")
"""


@pytest.fixture(scope="module")
def _nodes() -> Iterator[None]:
    """A head without processors and two nodes with one each, whose workers find the step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
            yield
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "gen.py"
    made.write_text(SOURCE)
    return made


def edit(file: Path) -> None:
    file.write_text(SOURCE.replace("first", "second"))


@pytest.mark.parametrize("change", [Path.unlink, edit], ids=["the file is gone", "the file was edited"])
@pytest.mark.parametrize("command", [None, (sys.executable,)], ids=["Ray's workers", "children"])
@pytest.mark.usefixtures("_nodes")
def test_workers_run_what_the_driver_has_read(
    file: Path, tmp_path: Path, change: Callable[[Path], None], command: tuple[str, ...] | None
) -> None:
    kind = f"{file}:Talking"
    recipe = ours.recipe_of(cpu=ours.workers(2, cpus=1, command=command))
    recipe = recipe.model_copy(update={"generators": {**recipe.generators, "mine": GeneratorSpec(kind=kind)}})
    registry.class_of(kind)
    key = key_of(tell, TellRequest(kind=kind, options={}, number=0))
    change(file)

    async def work() -> list[Told]:
        async with ours.engine_at(tmp_path, recipe) as (memo, _):
            requests = [TellRequest(kind=kind, options={}, number=n) for n in range(16)]
            calls = [memo.call(tell, request, Charge(f"{request.number:064d}"), "cpu") for request in requests]
            return await asyncio.wait_for(asyncio.gather(*calls), 120)

    found = asyncio.run(work())
    assert {told.word for told in found} == {"first"}
    assert len({told.node for told in found}) == (1 if command else 2), "both nodes have to be asked"
    assert key_of(tell, TellRequest(kind=kind, options={}, number=0)) == key


def test_a_new_run_takes_the_file_as_it_is_then(file: Path) -> None:
    kind = f"{file}:Talking"
    request = TellRequest(kind=kind, options={}, number=0)
    first, key = registry.create(kind, {}), key_of(tell, request)
    edit(file)
    assert registry.create(kind, {}).word() == "first"  # type: ignore[attr-defined]
    assert key_of(tell, request) == key
    shipped.read_again()
    assert registry.create(kind, {}).word() == "second"  # type: ignore[attr-defined]
    assert key_of(tell, request) != key
    assert first.word() == "first"  # type: ignore[attr-defined]


def test_the_key_is_of_what_the_file_says_and_not_of_where_it_lies(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "another name.py"
    other.parent.mkdir()
    other.write_text(SOURCE)
    keys = {key_of(tell, TellRequest(kind=f"{path}:Talking", options={}, number=0)) for path in (file, other)}
    assert len(keys) == 1


def test_a_traceback_shows_the_lines_that_ran(file: Path) -> None:
    made = registry.create(f"{file}:Talking", {})
    file.unlink()
    with pytest.raises(RuntimeError) as raised:
        made.run(None, Path("nowhere"))  # type: ignore[attr-defined]
    assert 'raise RuntimeError("it only talks")' in "".join(traceback.format_exception(raised.value))


def test_a_file_that_is_no_text_is_told_in_one_line(file: Path) -> None:
    file.write_bytes(b"caf\xe9")
    with pytest.raises(BadRecipe, match=r"gen\.py can't be read: 'utf-8' codec"):
        registry.class_of(f"{file}:Talking")
