"""A stand-in for a ComfyUI server: real HTTP and a real websocket on this machine, the same addresses, files and answers, no models.

It "runs" a workflow by giving back what was uploaded to its first loader, tinted by the seed, and misbehaves as told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from manifests import media

VIDEO: dict[str, Any] = {
    "1": {"class_type": "LoadVideo", "inputs": {"file": "example.mp4"}, "_meta": {"title": "Driving clip"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Character"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "an example", "clip": ["9", 0]}, "_meta": {"title": "Prompt"}},
    "4": {
        "class_type": "Animate",
        "inputs": {"seed": 1, "width": 64, "height": 64, "length": 5, "video": ["1", 0], "image": ["2", 0], "text": ["3", 0]},
    },
    "5": {"class_type": "SaveVideo", "inputs": {"filename_prefix": "ComfyUI", "fps": 16, "video": ["4", 0]}, "_meta": {"title": "Save"}},
    "9": {"class_type": "CLIPLoader", "inputs": {"clip_name": "t5.safetensors"}},
}
VIDEO_SLOTS: dict[str, Any] = {
    "clip": "Driving clip.inputs.file", "painted": "2.inputs.image", "prompt": "Prompt.inputs.text", "seed": "4.inputs.seed",
    "width": "4.inputs.width", "height": "4.inputs.height", "frames": "4.inputs.length", "fps": ["5.inputs.fps"],
}  # fmt: skip
IMAGE: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Character"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "Scene"}},
    "3": {"class_type": "Edit", "inputs": {"seed": 1, "width": 64, "height": 64, "prompt": "", "image1": ["1", 0], "image2": ["2", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["3", 0]}},
}
IMAGE_SLOTS: dict[str, Any] = {
    "character": "Character.inputs.image", "scene": "Scene.inputs.image", "prompt": "3.inputs.prompt", "seed": "3.inputs.seed",
    "width": "3.inputs.width", "height": "3.inputs.height",
}  # fmt: skip

ERRORS: dict[str, tuple[str, str]] = {
    "oom": ("torch.OutOfMemoryError", "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated: 78 GiB"),
    "oom_of_ram": ("RuntimeError", "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory"),
    "disk_full": ("OSError", "[Errno 28] No space left on device: 'output/x.mp4'"),
    "crash": ("ValueError", "expected 16 channels\ngot 4"),
}


class StandinComfyUI:
    """Use as a context manager. `fault` may be changed between requests."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.url = ""
        self.port = 0
        self.prompts: list[dict[str, Any]] = []
        """what was queued, as it came"""
        self.calls: list[tuple[str, Any]] = []
        """interruptions and deletions, with their bodies"""
        self.worked: list[str] = []
        """numbers of jobs that were begun"""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="stand-in ComfyUI", daemon=True)
        self._ready = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="standin-comfyui-")

    # --- its life

    def __enter__(self) -> StandinComfyUI:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        self._folder.cleanup()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._live())
        self._loop.close()

    async def _live(self) -> None:
        self._over = asyncio.Event()
        self._app = web.Application(client_max_size=1 << 28)
        self._app.add_routes([
            web.post("/upload/image", self._upload), web.post("/prompt", self._prompt), web.get("/queue", self._queue),
            web.post("/queue", self._delete), web.post("/interrupt", self._interrupt), web.get("/history/{id}", self._history),
            web.get("/view", self._view), web.get("/ws", self._ws),
        ])  # fmt: skip
        self._empty()
        self._runner = web.AppRunner(self._app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await self._listen()
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready.set()
        await self._over.wait()
        for task in self._tasks:
            task.cancel()
        await self._runner.cleanup()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    def _empty(self) -> None:
        self.running: list[list[Any]] = []
        self.pending: list[list[Any]] = []
        self.history: dict[str, Any] = {}
        self._stop: dict[str, asyncio.Event] = {}
        self._sockets: dict[str, list[web.WebSocketResponse]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def busy_with(self, others: int) -> None:
        """So many jobs of somebody else's that never end."""
        entries = [[i, f"other-{i}", {}, {"client_id": "somebody"}, []] for i in range(others)]
        self.running, self.pending = entries[:1], entries[1:]

    async def _restart(self, away_s: float | None) -> None:
        """Everything forgotten; None: it does not come back."""
        await self._site.stop()
        assert self._runner.server
        for connection in self._runner.server.connections:
            if connection.transport:
                connection.transport.abort()
        self._empty()
        if away_s is not None:
            await asyncio.sleep(away_s)
            await self._listen()

    # --- what it answers

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        if self.fault == "upload_too_large":
            return web.Response(status=413, text="too large")
        if self.fault == "upload_refused":
            return web.Response(status=400)
        form = await request.post()
        file = form["image"]
        assert isinstance(file, web.FileField)
        target = Path(self._folder.name, "input", file.filename)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.file.read())
        return web.json_response({"name": file.filename, "subfolder": "", "type": "input"})

    async def _prompt(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.prompts.append(body)
        refused = {
            "node_errors": ("prompt_outputs_failed_validation", {"4": {"class_type": "Animate", "dependent_outputs": ["5"], "errors": [
                {"type": "value_not_in_list", "message": "Value not in list", "details": "model: 'wan.safetensors' not in []"}]}}),
            "missing_node": ("missing_node_type", {}),
        }  # fmt: skip
        if self.fault in refused:
            kind, nodes = refused[self.fault]
            error = {"type": kind, "message": f"{kind}", "details": "Node 'Animate' not found", "extra_info": {}}
            return web.json_response({"error": error, "node_errors": nodes}, status=400)
        if self.fault in ("locked", "trouble"):
            return web.Response(status={"locked": 401, "trouble": 500}[self.fault], text="<html>no</html>")
        if self.fault == "no_json":
            return web.Response(text="<html>welcome</html>")
        number = body["prompt_id"] if self.fault != "older" else str(uuid.uuid4())
        entry = [len(self.prompts), number, body["prompt"], {"client_id": body["client_id"]}, ["5"]]
        if self.fault != "forgets":
            self.pending.append(entry)
            self._stop[number] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._work(entry)))
        if self.fault == "answer_lost":
            assert request.transport
            request.transport.close()
        errors = {"5": {"errors": [{"message": "Required input is missing", "details": "fps"}]}} if self.fault == "partial" else {}
        return web.json_response({"prompt_id": number, "number": entry[0], "node_errors": errors})

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        if self.fault == "no_comfyui":
            return web.json_response({"hello": "world"})
        return web.json_response({"queue_running": self.running, "queue_pending": self.pending})

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls.append(("delete", body))
        self.pending = [entry for entry in self.pending if entry[1] not in body["delete"]]
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(("interrupt", await request.json()))
        for entry in self.running:
            self._stop.get(entry[1], asyncio.Event()).set()
        return web.Response()

    async def _history(self, request: web.Request) -> web.StreamResponse:
        number = request.match_info["id"]
        return web.json_response({number: self.history[number]} if number in self.history else {})

    async def _view(self, request: web.Request) -> web.StreamResponse:
        path = Path(self._folder.name, request.query["type"], request.query["subfolder"], request.query["filename"])
        if not path.is_file():
            return web.Response(status=404)
        data = path.read_bytes()
        if self.fault == "transfer_drips":
            slow = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await slow.prepare(request)
            for i in range(len(data)):
                await slow.write(data[i : i + 1])
                await asyncio.sleep(0.05)
        cuts = self.fault == "transfer_cut" or (self.fault == "transfer_cut_once" and ("cut", None) not in self.calls)
        if cuts:
            self.calls.append(("cut", None))
            answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
            await answer.prepare(request)
            await answer.write(data[: len(data) // 2])
            assert request.transport
            request.transport.close()
            return answer
        return web.Response(body=data)

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if self.fault == "socket_refused":
            return web.Response(status=502)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.setdefault(request.query["clientId"], []).append(socket)
        with contextlib.suppress(ConnectionError):
            await socket.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}})
        async for message in socket:
            if message.type == WSMsgType.ERROR:
                break
        return socket

    async def _tell(self, entry: list[Any], kind: str, **data: Any) -> None:
        for socket in self._sockets.get(entry[3]["client_id"], []):
            with contextlib.suppress(ConnectionError):
                if self.fault == "socket_nonsense":
                    await socket.send_str('{"type": 7, "data": [')
                    await socket.send_bytes(b"\0\0\0\1\0\0\0\2preview")
                await socket.send_json({"type": kind, "data": {"prompt_id": entry[1], **data}})

    async def _hang_up(self) -> None:
        for sockets in self._sockets.values():
            for socket in sockets:
                if socket._req and socket._req.transport:
                    socket._req.transport.abort()

    # --- how it works

    async def _work(self, entry: list[Any]) -> None:
        number, nodes = entry[1], entry[2]
        while self.running or self.pending[0] is not entry:
            await asyncio.sleep(0.01)
            if entry not in self.pending:
                return
        self.pending.remove(entry)
        self.running.append(entry)
        self.worked.append(number)
        await self._tell(entry, "execution_start")
        await self._tell(entry, "progress", value=2, max=5, node="4")
        if self.fault == "socket_breaks":
            await self._hang_up()
        if self.fault in ("restarts", "dies", "blinks"):
            saved = (self.running, self.history, self._stop)
            asyncio.create_task(self._restart({"restarts": 0.2, "dies": None, "blinks": 0.3}[self.fault]))  # noqa: RUF006
            if self.fault != "blinks":
                return
            await asyncio.sleep(0.1)
            self.running, self.history, self._stop = saved
        if self.fault in ("hangs", "partial", "answer_lost"):
            await self._stop[number].wait()
        if self._stop[number].is_set() or self.fault == "interrupted":
            return await self._end(entry, {}, "error", ["execution_interrupted", {"prompt_id": number, "node_id": "4"}])
        if self.fault in ERRORS:
            kind, words = ERRORS[self.fault]
            about = {"node_id": "4", "node_type": "Animate", "exception_type": kind, "exception_message": words, "traceback": []}
            return await self._end(entry, {}, "error", ["execution_error", about])
        if self.fault == "fails_silently":
            return await self._end(entry, {}, "error", ["execution_start", {}])
        try:
            outputs = await asyncio.to_thread(self._outputs, nodes)
        except Exception as e:
            about = {"node_id": "1", "node_type": "Load", "exception_type": type(e).__name__, "exception_message": str(e)}
            return await self._end(entry, {}, "error", ["execution_error", about])
        await self._end(entry, outputs, "success", ["execution_success", {"prompt_id": number}])

    async def _end(self, entry: list[Any], outputs: Any, status: str, last: list[Any]) -> None:
        about = {"status_str": status, "completed": status == "success", "messages": [["execution_start", {}], last]}
        self.history[entry[1]] = {"prompt": entry, "outputs": outputs, **({} if self.fault == "older" else {"status": about})}
        self.running.remove(entry)
        await self._tell(entry, last[0])

    def _outputs(self, nodes: dict[str, Any]) -> dict[str, Any]:
        if self.fault == "no_output":
            return {}
        if self.fault == "text_output":
            return {"5": {"text": ["done"], "files": [{"filename": "notes.txt", "subfolder": "", "type": "output"}]}}
        saver = next(number for number, node in nodes.items() if node["class_type"].startswith("Save"))
        path = self._named(nodes[saver]["inputs"]["filename_prefix"], ".mp4" if nodes[saver]["class_type"] == "SaveVideo" else ".png")
        (self._video if path.suffix == ".mp4" else self._picture)(nodes, path)
        made = {"filename": path.name, "subfolder": str(path.parent.relative_to(Path(self._folder.name, "output"))), "type": "output"}
        if self.fault == "lost_file":
            path.unlink()
        elif self.fault in ("empty", "half"):
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2 if self.fault == "half" else 0])
        other = {**made, "filename": f"other{path.suffix}"}
        return {saver: {"images" if path.suffix == ".png" else "gifs": [made, other] if self.fault == "two_outputs" else [made]}}

    def _named(self, prefix: str, suffix: str) -> Path:
        """As ComfyUI counts: the same prefix twice gives two names."""
        place = Path(self._folder.name, "output", prefix)
        place.parent.mkdir(parents=True, exist_ok=True)
        return next(path for i in range(1, 100) if not (path := place.with_name(f"{place.name}_{i:05d}_{suffix}")).exists())

    def _input(self, name: str) -> Path:
        return Path(self._folder.name, "input", name)

    def _video(self, nodes: dict[str, Any], path: Path) -> None:
        asked, fps = nodes["4"]["inputs"], nodes["5"]["inputs"]["fps"]
        frames, _ = media.read_frames(self._input(nodes["1"]["inputs"]["file"]))
        media.read_image(self._input(nodes["2"]["inputs"]["image"]))
        assert frames.shape[:3] == (asked["length"], asked["height"], asked["width"]), "uploads and numbers do not agree"
        frames = np.asarray(255 - (255 - frames.astype(int)) * (60 + asked["seed"] % 40) // 100, np.uint8)
        if self.fault == "wrong_frames":
            frames = frames[: len(frames) // 2]
        elif self.fault == "wrong_size":
            frames = frames[:, : asked["height"] // 4 * 2]
        elif self.fault == "black":
            frames = np.zeros_like(frames)
        elif self.fault == "frozen":
            frames = np.repeat(frames[:1], len(frames), axis=0)
        media.write_video(path, frames, fps * 2 if self.fault == "wrong_fps" else fps)

    def _picture(self, nodes: dict[str, Any], path: Path) -> None:
        asked = nodes["3"]["inputs"]
        shown = media.read_image(self._input(nodes["1"]["inputs"]["image"]))
        tall, wide = (np.arange(asked[side]) * shown.shape[i] // asked[side] for i, side in enumerate(("height", "width")))
        made = shown[tall][:, wide]
        media.write_png(path, np.zeros_like(made) if self.fault == "black" else made)


def written(folder: Path, workflow: dict[str, Any]) -> str:
    """The workflow as a file."""
    path = folder / "workflow.json"
    path.write_text(json.dumps(workflow))
    return str(path)
