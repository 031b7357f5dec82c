"""Pictures that a service is paid for, through a real engine: what they cost is counted, and a service that lets nobody in ends the run."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from moving import GEOMETRY, image_request
from standin_images import StandinImages

from factory import steps
from factory.engine import Engine
from factory.steps import Charge
from factory.work.making import PaintRequest, generate_image
from manifests.errors import BadRecipe
from manifests.ledger import Ledger
from manifests.recipe import parse_recipe
from manifests.store import Store

KEY = "sk-stand-in-0123456789abcdef"
PRICE = 0.04
DIGEST = "c" * 64


def recipe(**more: Any) -> Any:
    slices = {"a": {"task": "animation", "generator": "video", "quota": 1, "where": {"people": 1}}}
    painter = {"kind": "openai_edit", "model": "painter-1", "price_per_image": PRICE}
    return {
        "recipe": "paid", "seed": 1, "sources": [{"clips": "clips", "licence": "cc0"}], "slices": slices,
        "generators": {"painter": painter, "video": {"kind": "puppet"}}, **more,
    }  # fmt: skip


def test_a_picture_costs_its_price_a_refusal_nothing_and_a_wrong_key_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_KEY", KEY)
    source, store, buffer = image_request(tmp_path / "material"), Store(tmp_path / "store"), io.BytesIO()
    source.clip_people.save(buffer)
    clip = store.put(buffer.getvalue(), ".npz")

    async def work(standin: StandinImages) -> list[object]:
        out: list[object] = []
        with Ledger(tmp_path / "ledger.sqlite", store) as ledger:
            async with Engine(parse_recipe(recipe()), store, ledger, {DIGEST: str(source.pictures["character"])}) as engine:
                for seed, fault in enumerate(("", "once_busy", "policy", "gateway", "unauthorized")):
                    standin.fault = fault
                    standin.sent.clear()
                    request = PaintRequest(
                        kind="openai_edit", pictures={"character": DIGEST}, prompt="a robot", negative="", scale=1.0, geometry=GEOMETRY,
                        clip=clip, person=0, mode="animation", seed=seed,
                        options={"base_url": standin.url, "key_env": "STANDIN_KEY", "model": "painter-1", "sizes": [[96, 96]],
                                 "attempts": 2, "price_per_image": PRICE},
                    )  # fmt: skip
                    call = engine.run(
                        generate_image, request, steps.key_of(generate_image, request), Charge("0" * 64, f"{seed:064d}"), "cpu"
                    )
                    try:
                        out.append((await asyncio.wait_for(call, 6 if fault == "gateway" else 60)).status)
                    except Exception as e:
                        out.append(e)
                    out.append([(s.requests, s.unconfirmed_requests, s.money_nano, s.unconfirmed_nano) for s in ledger.spend()])
        return out

    with StandinImages() as standin:
        told = asyncio.run(work(standin))
    nano = round(PRICE * 1e9)
    assert told[:2] == ["ok", [(1, 0, nano, 0)]]
    assert told[2:4] == ["ok", [(3, 0, 2 * nano, 0)]], "a request that was turned away costs nothing"
    assert told[4:6] == ["rejected", [(4, 0, 2 * nano, 0)]]
    assert isinstance(told[6], TimeoutError)
    (after_gateway,) = told[7]  # type: ignore[misc]
    assert after_gateway[1] >= 2, "a gateway that lost patience may have been billed"
    assert after_gateway[3] == after_gateway[1] * nano
    assert isinstance(told[8], BadRecipe)
    assert "does not accept the key (status 401)" in str(told[8])
    assert KEY not in str(told[8])


def test_a_budget_of_money_may_stand_on_the_price_of_pictures_alone() -> None:
    parse_recipe(recipe(budget={"money": 5}))
    unpriced = recipe(budget={"money": 5})
    del unpriced["generators"]["painter"]["price_per_image"]
    with pytest.raises(BadRecipe, match=r"budget\.money counts what models cost"):
        parse_recipe(unpriced)
