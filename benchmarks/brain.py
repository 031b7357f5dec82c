"""How well the wire to a vision-language model uses its endpoint: throughput, limits, and a real server.

    python benchmarks/brain.py            # about two and a half minutes: also a real minute and more at 600 requests/min
    python benchmarks/brain.py --quick    # under 50 s: the limit of the minute with a clock four times as fast
    python benchmarks/brain.py --real     # also against a real server on this machine (needs the extra `llama`)

A scripted HTTP server on this machine answers every request after one second. Throughput is told as a share of the ideal: as many
requests a second as may be under way at once; the journal is written to a temporary folder like in a run. For the sliding minute, requests
are counted where they arrive. `share_of_ideal` counts the start and the end of a run, `share_of_ideal_between` leaves out the first and the
last request of each slot. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from agents.brains.limits import Clock, MachineClock
from agents.brains.openai import OpenAIBrain
from agents.brains.question import Picture, Question
from manifests.agency import EndpointSpec, ModelSpec
from manifests.errors import BadAnswer
from manifests.ledger import Ledger
from manifests.records import Frozen
from manifests.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import small_model
from scripted_server import Act, ScriptedServer, Seen, completion

IN_FLIGHT = 64
ANSWER_S = 1.0
PER_MINUTE = 600
PICTURE_BYTES = 150_000
"""of a contact sheet as JPEG"""
QUICK_FACTOR = 4.0
REAL_QUESTIONS = 4


class Opinion(Frozen):
    decision: Literal["accept", "revise", "reject"]
    score: float = Field(ge=0, le=1)
    words: str = Field(max_length=200)


GOOD = '{"decision": "accept", "score": 0.5, "words": "both hands are seen"}'


class ScaledClock:
    """The machine's clock, some times as fast."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def now(self) -> float:
        return time.monotonic() * self.factor

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.factor)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="under 50 s")
    parser.add_argument("--real", action="store_true", help="also a real server with a small model")
    asked = parser.parse_args()
    seconds = (10, 5) if asked.quick else (30, 30)
    out: dict[str, Any] = {"throughput": throughput(seconds[0], 0), "throughput_with_picture": throughput(seconds[1], 1)}
    print(json.dumps(out), flush=True)
    out["sliding_minute"] = sliding_minute(QUICK_FACTOR if asked.quick else 1.0)
    if asked.real:
        out["real_server"] = real_server()
    print(json.dumps(out))


def question(number: int, pictures: int, max_tokens: int = 300) -> Question:
    shown = tuple(Picture(f"sheet {i}", number.to_bytes(4, "big") * (PICTURE_BYTES // 4), "image/jpeg") for i in range(pictures))
    key = hashlib.sha256(str(number).encode()).hexdigest()
    model = ModelSpec(model="m", max_tokens=max_tokens)
    return Question(key, "image_checker", model, "Judge the picture." * 50, f'{{"number": {number}}}', shown, Opinion)


def answer(seen: Seen, before: int) -> Act:
    return completion(GOOD, (900, 40), delay_s=ANSWER_S)


def asked_all(url: str, count: int, pictures: int, clock: Clock, **limits: Any) -> tuple[list[float], float]:
    """When each answer came, in seconds from the first question on, and the CPU seconds of all. One more goes before, to load modules."""

    async def run(store: Store) -> tuple[list[float], float]:
        spec = EndpointSpec(base_url=url, in_flight=IN_FLIGHT, price_in=0.15, price_out=0.6, **limits)
        brain = OpenAIBrain(spec, store, clock)
        await brain.ask(question(count, pictures))
        began, cpu = time.perf_counter(), time.process_time()

        async def answered_s(number: int) -> float:
            await brain.ask(question(number, pictures))
            return time.perf_counter() - began

        at_s = await asyncio.gather(*(answered_s(n) for n in range(count)))
        cpu_s = time.process_time() - cpu
        await brain.close()
        return sorted(at_s), cpu_s

    with tempfile.TemporaryDirectory(prefix="motionpair-bench-") as folder:
        return asyncio.run(run(Store(folder)))


def serve(line: Connection) -> None:
    """The server's process: tells its address, and at the end how many requests were open at most."""
    with ScriptedServer(answer) as server:
        line.send(server.url)
        line.recv()
        line.send(server.most_open)


def throughput(seconds: int, pictures: int) -> dict[str, Any]:
    """Against a server that answers after a second, in a process of its own."""
    count = IN_FLIGHT * seconds
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    at_s, cpu_s = asked_all(ours.recv(), count, pictures, MachineClock())
    ours.send("over")
    most_open = ours.recv()
    process.join()
    return {
        "requests": count,
        "most_under_way": most_open,
        "share_of_ideal": round(count / IN_FLIGHT * ANSWER_S / at_s[-1], 4),
        "share_of_ideal_between": round((count - 2 * IN_FLIGHT) / IN_FLIGHT * ANSWER_S / (at_s[-IN_FLIGHT - 1] - at_s[IN_FLIGHT - 1]), 4),
        "cpu_ms_a_request": round(1000 * cpu_s / count, 2),
    }


def sliding_minute(factor: float) -> dict[str, Any]:
    """More requests than one minute holds; `factor`: how many times as fast as the real one the clock runs."""
    count = PER_MINUTE + PER_MINUTE // 2
    with ScriptedServer(answer if factor == 1 else lambda *_: completion(GOOD)) as server:
        at_s, _ = asked_all(server.url, count, 0, ScaledClock(factor), requests_per_min=PER_MINUTE)
    at = sorted(seen.at_s * factor for seen in server.seen)
    most = max(bisect.bisect_left(at, start + 60.0) - i for i, start in enumerate(at))
    return {"limit": PER_MINUTE, "most_in_any_60_s": most, "requests": count, "clock_factor": factor, "took_s": round(at_s[-1], 1)}


def real_server() -> dict[str, Any]:
    """A few questions to a small model behind llama.cpp: the wire, not the judgement."""
    if small_model.missing():
        return {"skipped": f"not installed: {', '.join(small_model.missing())}"}

    async def run(base_url: str, store: Store) -> list[object]:
        brain = OpenAIBrain(EndpointSpec(base_url=base_url, in_flight=2, timeout_s=300), store)
        ended = await asyncio.gather(*(brain.ask(question(n, 0, 100)) for n in range(REAL_QUESTIONS)), return_exceptions=True)
        await brain.close()
        return list(ended)

    with tempfile.TemporaryDirectory(prefix="motionpair-bench-") as folder, small_model.served(Path(folder)) as base_url:
        store, began = Store(Path(folder) / "store"), time.perf_counter()
        ended = asyncio.run(run(base_url, store))
        took_s = time.perf_counter() - began
        with Ledger(Path(folder) / "l.sqlite", store) as ledger:
            ledger.rebuild(store)
            (spend,) = ledger.spend()
    unexpected = [repr(e) for e in ended if not isinstance(e, Opinion | BadAnswer)]
    return {
        "questions": len(ended), "fit": sum(isinstance(e, Opinion) for e in ended),
        "bad_answers": sum(isinstance(e, BadAnswer) for e in ended),
        "unexpected": unexpected, "requests": spend.requests, "unconfirmed": spend.unconfirmed_requests,
        "tokens_a_second": round(spend.completion_tokens / took_s, 1), "took_s": round(took_s, 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
