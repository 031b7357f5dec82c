"""A stand-in for a service with an OpenAI-compatible `images.edit`: a real HTTP server on this machine that paints nothing and misbehaves
as told. It keeps what it was sent."""

from __future__ import annotations

import asyncio
import base64
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from aiohttp import web

from manifests import media

SOON = {"retry-after-ms": "1"}
REFUSALS: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "busy": (429, {"message": "slow down", "code": "rate_limit_exceeded"}, SOON),
    "broken": (500, {"message": "oops"}, SOON),
    "gateway": (504, {"message": "upstream took too long"}, SOON),
    "policy": (400, {"message": "Your request was rejected by the safety system", "code": "moderation_blocked"}, {}),
    "policy_403": (403, {"message": "no", "code": "content_policy_violation"}, {}),
    "bad_request": (400, {"message": "Invalid value: '1024x768'", "code": "invalid_value", "param": "size"}, {}),
    "unauthorized": (401, {"message": "Incorrect API key provided: {key}", "code": "invalid_api_key"}, {}),
    "forbidden": (403, {"message": "your project may not"}, {}),
    "no_model": (404, {"message": "no such model"}, {}),
    "no_money": (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, {}),
    "unpaid": (402, {"message": "pay"}, {}),
    "elsewhere": (307, {}, {"location": "http://127.0.0.1:9/v1/images/edits"}),
    "too_large": (413, {"message": "too large"}, {}),
}


@dataclass
class Sent:
    """One request for a picture."""

    headers: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str, bytes]] = field(default_factory=list)
    """field, file name, content"""


class StandinImages:
    """Use as a context manager; `url` is what a recipe's base_url would be. `fault` may be changed between requests."""

    def __init__(self, fault: str = "", gives_back: bool = False) -> None:
        """`gives_back`: the first picture that was sent, unstretched, instead of a ramp."""
        self.fault = fault
        self.gives_back = gives_back
        self.url = ""
        self.sent: list[Sent] = []
        self.fetched: list[dict[str, str]] = []
        """headers of requests for a picture's address"""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="stand-in image service", daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> StandinImages:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._live())
        self._loop.close()

    async def _live(self) -> None:
        self._over = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.add_routes([web.post("/v1/images/edits", self._edit), web.get("/files/painted.png", self._file)])
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._root = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.url = f"{self._root}/v1"
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()

    async def _edit(self, request: web.Request) -> web.StreamResponse:
        sent = Sent({name.lower(): value for name, value in request.headers.items()})
        for name, value in (await request.post()).items():
            if isinstance(value, web.FileField):
                sent.files.append((name, value.filename, value.file.read()))
            else:
                sent.fields[name] = str(value)
        self.sent.append(sent)
        fault = self.fault
        if fault in ("once_busy", "once_cut") and len(self.sent) > 1:
            fault = ""
        if fault in REFUSALS or fault == "once_busy":
            status, error, headers = REFUSALS["busy" if fault == "once_busy" else fault]
            told = {
                **error,
                "message": str(error.get("message", "")).replace("{key}", sent.headers["authorization"].removeprefix("Bearer ")),
            }
            return web.json_response({"error": told}, status=status, headers=headers)
        if fault == "silent":
            await asyncio.sleep(60)
        if fault in ("hangs_up", "once_cut"):
            assert request.transport
            request.transport.abort()
            return web.Response()
        if fault == "html":
            return web.Response(text="<html>log in</html>", content_type="text/html")
        if fault == "drips":
            answer = web.StreamResponse()
            await answer.prepare(request)
            while True:
                await answer.write(b" ")
                await asyncio.sleep(0.05)
        return web.json_response(self._answer(fault, *map(int, sent.fields["size"].split("x"))))

    def _answer(self, fault: str, width: int, height: int) -> dict[str, Any]:
        if fault == "text":
            return {"choices": [{"message": {"content": "I am sorry, I can't."}}]}
        if fault == "says_no":
            return {"error": {"message": "I can't paint that"}}
        if fault == "no_data":
            return {"created": 1, "data": []}
        if fault.startswith("url"):
            return {"data": [{"url": "file:///etc/passwd" if fault == "url_of_file" else f"{self._root}/files/painted.png"}]}
        data = painted(height // 2 if fault == "wrong_size" else height, width, black=fault == "black")
        if self.gives_back:
            data = given_back(self.sent[-1].files[0][2], height, width)
        if fault == "jpeg":
            data = cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()
        elif fault == "half_picture":
            data = data[: len(data) // 2]
        elif fault == "no_picture":
            data = b"this is no picture at all"
        text = base64.b64encode(data).decode()
        if fault == "data_url":
            return {"data": [{"url": f"data:image/png;base64,{text}"}]}
        return {"data": [{"b64_json": text[: len(text) // 2 | 1] if fault == "cut_base64" else text}]}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        self.fetched.append({name.lower(): value for name, value in request.headers.items()})
        if self.fault == "url_gone":
            return web.Response(status=404)
        width, height = map(int, self.sent[-1].fields["size"].split("x"))
        data = painted(height, width)
        if self.fault == "url_cut":
            answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await answer.prepare(request)
            await answer.write(data[: len(data) // 2])
            assert request.transport
            request.transport.close()
            return answer
        return web.Response(body=data)


def given_back(png: bytes, height: int, width: int) -> bytes:
    """The picture as large as it fits, in the middle of its corner's colour."""
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    ratio = min(height / shown.shape[0], width / shown.shape[1])
    scaled = cv2.resize(shown, (round(shown.shape[1] * ratio), round(shown.shape[0] * ratio)), interpolation=cv2.INTER_AREA)
    out = np.full((height, width, 3), shown[0, 0], np.uint8)
    top, left = (height - scaled.shape[0]) // 2, (width - scaled.shape[1]) // 2
    out[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return media.encode_png(out[..., ::-1])


def painted(height: int, width: int, black: bool = False) -> bytes:
    """A picture of this size."""
    ramp = np.zeros((height, width, 3), np.uint8)
    if not black:
        ramp[..., 0] = np.linspace(20, 240, width, dtype=np.uint8)
        ramp[..., 1] = np.linspace(20, 240, height, dtype=np.uint8)[:, None]
    return media.encode_png(ramp)
