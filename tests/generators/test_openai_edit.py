"""`kind: openai_edit` against a stand-in service that fails in every way that a real one can. No real service was asked.

The table below is the fault matrix: each fault, the error that it has to become, its code, and how the engine takes it.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moving import GEOMETRY, image_request, video_request
from standin_images import StandinImages

from factory import steps
from factory.work.making import PaintRequest, generate_image
from factory.workbench import Workbench
from generators import conformance, registry
from generators.base import ImageGenerator
from generators.conformance import Sample
from manifests import media
from manifests.errors import BadInput, BadOutput, BadRecipe, MotionpairError, Transient
from manifests.records import Geometry

FAULTS: dict[str, tuple[type[MotionpairError], str, str]] = {
    # the service
    "nobody": (Transient, "service_busy", "transient"),
    "busy": (Transient, "service_busy", "transient"),
    "broken": (Transient, "service_busy", "transient"),
    "gateway": (Transient, "service_busy", "transient"),
    "silent": (Transient, "service_busy", "transient"),
    "drips": (Transient, "service_busy", "transient"),
    "hangs_up": (Transient, "service_busy", "transient"),
    "html": (Transient, "service_busy", "transient"),
    # the key and the recipe
    "unauthorized": (BadRecipe, "bad_recipe", "bad_recipe"),
    "forbidden": (BadRecipe, "bad_recipe", "bad_recipe"),
    "no_model": (BadRecipe, "bad_recipe", "bad_recipe"),
    "no_money": (BadRecipe, "bad_recipe", "bad_recipe"),
    "unpaid": (BadRecipe, "bad_recipe", "bad_recipe"),
    "elsewhere": (BadRecipe, "bad_recipe", "bad_recipe"),
    "bad_request": (BadRecipe, "bad_recipe", "bad_recipe"),
    # the request
    "policy": (BadInput, "refused_by_service", "rejected"),
    "policy_403": (BadInput, "refused_by_service", "rejected"),
    "too_large": (BadInput, "refused", "rejected"),
    # the answer
    "text": (BadOutput, "no_output", "rejected"),
    "says_no": (BadOutput, "no_output", "rejected"),
    "no_data": (BadOutput, "no_output", "rejected"),
    "cut_base64": (BadOutput, "half_written", "rejected"),
    "half_picture": (BadOutput, "half_written", "rejected"),
    "no_picture": (BadOutput, "half_written", "rejected"),
    "wrong_size": (BadOutput, "wrong_size", "rejected"),
    "black": (BadOutput, "black", "rejected"),
    "url_gone": (Transient, "service_busy", "transient"),
    "url_cut": (Transient, "service_busy", "transient"),
    "url_of_file": (BadOutput, "no_output", "rejected"),
}
HARMLESS = ("", "url", "data_url", "jpeg", "once_busy", "once_cut")
SLOW = ("silent", "drips")
NOWHERE = "http://127.0.0.1:9/v1"
KEY = "sk-stand-in-0123456789abcdef"


@pytest.fixture(scope="module")
def service() -> Iterator[StandinImages]:
    with StandinImages() as made:
        yield made


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_KEY", KEY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "call").mkdir()
    return tmp_path / "call"


def entry(url: str, fault: str = "", **more: Any) -> dict[str, Any]:
    """The options of a recipe's entry. A deadline ends the tries where no answer says how long to wait."""
    limits = {"attempts": 2, "timeout_s": 0.4 if fault in SLOW else 8}
    return {"base_url": url, "key_env": "STANDIN_KEY", "model": "painter-1", "sizes": [[96, 96], [96, 144]], **limits, **more}


def painter(url: str, fault: str = "", **more: Any) -> ImageGenerator:
    made = registry.create("openai_edit", entry(url, fault, **more))
    assert isinstance(made, ImageGenerator)
    return made


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_apart(fault: str, tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    error, code, _ = FAULTS[fault]
    began = time.monotonic()
    with StandinImages(fault) as standin, caplog.at_level(logging.DEBUG), pytest.raises(MotionpairError) as caught:
        painter(NOWHERE if fault == "nobody" else standin.url, fault).make(image_request(tmp_path), folder / "painted.png")
    assert (type(caught.value), caught.value.code) == (error, code), str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(folder) == [], "nothing partial is left"
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert time.monotonic() - began < 10


def test_the_engine_takes_each_fault_as_its_rules_say_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    source = image_request(tmp_path / "material")
    digest = "c" * 64
    bench = Workbench(str(tmp_path / "store"), {digest: str(source.pictures["character"])})
    buffer = io.BytesIO()
    source.clip_people.save(buffer)
    asked = PaintRequest(
        kind="openai_edit", options=entry(NOWHERE), pictures={"character": digest}, prompt="a robot", negative="", scale=1.0,
        geometry=GEOMETRY, clip=bench.store.put(buffer.getvalue(), ".npz"), person=0, mode="animation", seed=1,
    )  # fmt: skip
    store = Path(bench.store.url)
    before = {name: (store / name).read_bytes() for name in left(store)}
    wrong = {}
    for seed, (fault, (_, code, taken)) in enumerate(FAULTS.items()):
        with StandinImages(fault) as standin:
            options = entry(NOWHERE if fault == "nobody" else standin.url, fault)
            request = asked.model_copy(update={"options": options, "seed": seed})
            step_key = steps.key_of(generate_image, request)
            reply = bench.run("generate_image", request.model_dump(mode="json"), step_key)
        got = (reply["status"], reply["reason"]) if reply["type"] == "outcome" else (reply["response"], code)
        known = bench.store.get_outcome(step_key)
        remembered = known is not None and known.cost is not None and known.cost.seconds > 0 and not known.artifacts
        if got != (taken, code) or remembered != (taken == "rejected"):
            wrong[fault] = (got, remembered)
    assert wrong == {}
    kept = {name: (store / name).read_bytes() for name in left(store)}
    assert {name: data for name, data in kept.items() if not name.startswith(("outcomes/", "calls/"))} == before
    assert not any(KEY.encode() in data for data in kept.values()), "the key is in no file"


@pytest.mark.parametrize("fault", HARMLESS)
def test_what_harms_nothing_is_no_fault(fault: str, tmp_path: Path, folder: Path) -> None:
    with StandinImages(fault) as standin:
        painter(standin.url).make(image_request(tmp_path), folder / "painted.png")
        assert len(standin.sent) == (2 if fault.startswith("once") else 1)
        assert not any("authorization" in headers for headers in standin.fetched), "the key goes to the service alone"
    assert media.read_image(folder / "painted.png").shape == (96, 128, 3)
    assert left(folder) == ["painted.png"]


def test_what_a_service_refuses_once_it_has_served_is_the_requests_fault(tmp_path: Path, folder: Path) -> None:
    with StandinImages() as standin:
        made = painter(standin.url)
        made.make(image_request(tmp_path), folder / "painted.png")
        standin.fault = "bad_request"
        with pytest.raises(BadInput, match="Invalid value") as caught:
            made.make(image_request(tmp_path), folder / "painted.png")
    assert caught.value.code == "refused"


def test_references_go_out_in_the_order_of_the_prompt(service: StandinImages, tmp_path: Path, folder: Path) -> None:
    request = image_request(tmp_path)
    shades = {"scene": 200, "clothing": 120, "character": 60}
    files = {role: tmp_path / f"{role}.png" for role in shades}
    for role, shade in shades.items():
        media.write_png(files[role], np.full((40, 30, 3), shade, np.uint8))
    options = {"quality": "high", "fields": {"input_fidelity": "high"}, "seed_field": "seed", "negative_field": "negative_prompt"}
    painter(service.url, **options).make(dataclasses.replace(request, pictures=files), folder / "painted.png")
    sent = service.sent[-1]
    assert [name for name, _, _ in sent.files] == ["image[]"] * 3
    (folder / "got").mkdir()
    for (_, file, data), role in zip(sent.files, ("character", "clothing", "scene"), strict=True):
        (folder / "got" / file).write_bytes(data)
        assert int(media.read_image(folder / "got" / file)[0, 0, 0]) == shades[role]
    assert sent.fields["prompt"].startswith("Image 1 is the character, image 2 is the clothing, image 3 is the scene. a robot")
    about = {name: value for name, value in sent.fields.items() if name != "prompt"}
    assert about == {
        "model": "painter-1", "size": "144x96", "n": "1", "quality": "high", "input_fidelity": "high", "seed": "7",
        "negative_prompt": "blur",
    }  # fmt: skip
    assert sent.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(512, 896, "1536x1024"), (896, 512, "1024x1536"), (512, 512, "1024x1024"), (512, 576, "1024x1024")],
)
def test_the_nearest_allowed_size_is_asked_for(height: int, width: int, size: str, service: StandinImages, folder: Path) -> None:
    geometry = Geometry(frames=9, height=height, width=width)
    made = painter(service.url, sizes=[[1024, 1024], [1024, 1536], [1536, 1024]])
    made.make(image_request(folder, geometry=geometry), folder / "painted.png")
    assert service.sent[-1].fields["size"] == size
    assert media.read_image(folder / "painted.png").shape == (height, width, 3)


def test_another_size_is_taken_where_the_recipe_says_so_and_the_geometrys_own_can_be_asked(tmp_path: Path, folder: Path) -> None:
    with StandinImages("wrong_size") as standin:
        painter(standin.url, other_sizes=True, sizes=[]).make(image_request(tmp_path), folder / "painted.png")
        assert standin.sent[-1].fields["size"] == "128x96"
    assert media.read_image(folder / "painted.png").shape == (96, 128, 3)


def test_a_mask_goes_along_and_the_first_picture_has_its_size(service: StandinImages, tmp_path: Path, folder: Path) -> None:
    clear = np.full((64, 48, 4), 255, np.uint8)
    clear[20:40, :, 3] = 0
    (tmp_path / "mask.png").write_bytes(media.encode_png(clear))
    painter(service.url, mask=str(tmp_path / "mask.png")).make(image_request(tmp_path), folder / "painted.png")
    files = {name: data for name, _, data in service.sent[-1].files}
    assert files["mask"] == (tmp_path / "mask.png").read_bytes()
    first = next(data for name, data in files.items() if name.startswith("image"))
    (folder / "first.png").write_bytes(first)
    assert media.read_image(folder / "first.png").shape == (64, 48, 3)


# --- the entry


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"key_env": KEY}, "never the key itself"),
        ({"model": ""}, "at least 1 character"),
        ({"sizes": [[4, 4]]}, "from 16 to 8192"),
        ({"fields": {"api_key": "x"}}, "looks like a secret"),
        ({"fields": {"size": "1x1"}}, "size is sent anyway"),
        ({"mask": "/no/such.png"}, "mask: "),
        ({"modle": "x"}, "unknown key"),
    ],
)
def test_a_wrong_entry_is_refused_in_words(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRecipe, match=told) as caught:
        registry.create("openai_edit", {**entry(NOWHERE), **changed})
    assert KEY not in str(caught.value)


def test_a_mask_without_a_clear_part_is_refused(tmp_path: Path) -> None:
    media.write_png(tmp_path / "mask.png", np.full((32, 32, 3), 255, np.uint8))
    with pytest.raises(BadRecipe, match="nothing in it is clear"):
        painter(NOWHERE, mask=str(tmp_path / "mask.png"))


def test_a_key_that_is_not_there_is_missed_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    monkeypatch.delenv("STANDIN_KEY")
    made = painter(NOWHERE)
    assert made.missing(made.options) == ["no environment variable STANDIN_KEY"]
    with pytest.raises(BadRecipe, match=r"no STANDIN_KEY, which generators \(openai_edit\).key_env names"):
        made.make(image_request(tmp_path), folder / "painted.png")
    with pytest.raises(BadRecipe, match="holds a user, password"):
        painter("http://me:secret@host/v1", key_env="").setup()


def test_what_changes_no_pixel_changes_no_key_and_what_does_does(tmp_path: Path) -> None:
    def keyed(**more: Any) -> dict[str, Any]:
        return registry.keyed("openai_edit", entry(NOWHERE, **more))

    first = keyed()
    same = {"base_url": "http://elsewhere/v1", "key_env": "OTHER", "attempts": 9, "timeout_s": 5, "price_per_image": 0.04}
    assert keyed(**same) == first
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"1")
    others = [keyed(**more) for more in ({"model": "painter-2"}, {"quality": "low"}, {"seed_field": "seed"}, {"mask": str(mask)})]
    mask.write_bytes(b"2")
    assert all(other != first for other in [*others, keyed(mask=str(mask))])
    assert keyed(mask=str(mask)) != others[-1], "a mask counts by its content"


def test_it_keeps_the_contract(service: StandinImages, tmp_path: Path) -> None:
    request = video_request(tmp_path / "material")
    sample = Sample(request.clip, request.clip_people, request.painted, GEOMETRY)
    options = entry(service.url)
    found = conformance.examine(lambda: registry.create("openai_edit", options), sample, tmp_path / "kit")  # type: ignore[arg-type,return-value]
    assert [one for one in found if one.state == "broken"] == []
    assert {one.rule for one in found if one.state == "held"} >= {"runs", "refuses", "names_errors", "nothing_partial", "verify_rejects"}
