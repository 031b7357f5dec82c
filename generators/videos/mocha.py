"""MoCha (Orange-3DV-Team, on Wan2.1 14B): the painted characters take the places of the clip's people, one pass each.

A pass follows one white mask of the clip's first frame through the video and paints the character of the reference there; the next
pass works on its result. The pipeline stays loaded in MoCha's own environment (`mocha_serve.py`). Between passes nothing is coded, and the
video is written once, at the rate of the clip: the published script labels whatever it makes 30 fps and names it after its source.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import cv2
import numpy as np
from pydantic import Field, field_validator

from generators import base
from generators.base import Capabilities, Options, Report, VideoGenerator, VideoRequest, frames_covering
from generators.inputs import faces, pictures, regions
from generators.poses.figures import head_yaw_deg
from generators.poses.people import PeopleTracker
from generators.poses.tracks import Bytes
from generators.sources import digest_of_file, digest_of_sources, digest_of_weights
from generators.verifying import EXTRA_FRAMES, Written
from generators.videos.mocha_serve import SCALE
from generators.videos.puppet.cutout import main_person
from generators.workers.command import own_folder
from generators.workers.group import as_response
from generators.workers.lines import CHILD, Child, ChildDied
from manifests import media
from manifests.errors import BadInput, BadOutput

SERVE = Path(__file__).with_name("mocha_serve.py")
SIZE_HW = (480, 832)
FRAMES_MAX = 81
NOT_WANTED = (
    "overexposed, washed out, static, blurred, subtitles, low quality, compression artefacts, deformed hands, deformed face, extra limbs"
)
SILENCE_S = 300.0
"""reading 30 GB of weights may keep Python from running for minutes"""
SEEDS = 2**31
FRONTAL_DEG = 45.0
"""a head that looks farther aside gives no close-up"""
FACE_LEAST_PX = 24
FACE_SHARE = 0.55
"""of the close-up's height"""
UNKEYED = frozenset({"python", "repo", "device", "timeout_s", "load_timeout_s"})
"""what no pixel can depend on, or counts by its content"""


class MochaOptions(Options):
    """What a recipe says of an installed MoCha. Paths are those of the machines that run it."""

    python: str = ""
    """the interpreter of MoCha's own environment"""
    repo: str = ""
    """the folder that holds its package `diffsynth`"""
    weights: str = ""
    """the folder of Wan2.1-T2V-14B"""
    checkpoint: str = ""
    """MoCha's own .ckpt"""
    env: dict[str, str] = Field(default_factory=dict)
    """variables beside the worker's own"""
    device: str = Field(default="cuda", pattern=r"^(cpu|cuda(:\d+)?)$")
    size: tuple[int, int] = SIZE_HW
    """height and width of a lying video; upright clips get it turned"""
    frames_max: int = Field(default=FRAMES_MAX, ge=5, le=161)
    steps: int = Field(default=6, ge=1, le=200)
    guidance: float = Field(default=5.0, ge=1, le=20)
    shift: float = Field(default=5.0, gt=0, le=20)
    prompted: bool = False
    """give it the prompt; the published script gives it none"""
    negative: str = NOT_WANTED
    face: bool = True
    """a second reference: the face of the painted character, large, where it looks at the viewer"""
    timeout_s: float = Field(default=1500.0, gt=0)
    """for all passes of one video, below the pool's"""
    load_timeout_s: float = Field(default=1800.0, gt=0)

    @field_validator("python", "repo", "weights", "checkpoint")
    @classmethod
    def _absolute(cls, v: str) -> str:
        if v and not Path(v).is_absolute():
            raise ValueError(f"{v!r} must be an absolute path on the machines that run it")
        return v

    @field_validator("frames_max")
    @classmethod
    def _four_n_plus_one(cls, v: int) -> int:
        if v % 4 != 1:
            raise ValueError(f"frames_max must be 4n+1 (81), got {v}")
        return v

    @field_validator("size")
    @classmethod
    def _sixteens(cls, v: tuple[int, int]) -> tuple[int, int]:
        if any(side < 32 or side % 16 for side in v) or v[0] > v[1]:
            raise ValueError(f"size is [height, width] of a lying video, in multiples of 16, got {list(v)}")
        return v


class Mocha(VideoGenerator):
    """The painted characters stand where the clip's people stood."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        modes=frozenset({"replacement"}), people_max=6, frame_step=4, frames_max=FRAMES_MAX, sizes=(SIZE_HW, SIZE_HW[::-1]), gpus=1,
        inputs=frozenset({"first_mask", "reference", "face"}), code_licence="none", weights_licence="none", accept_licence=True,
    )  # fmt: skip
    options_type: ClassVar[type[base.Options]] = MochaOptions
    weights: ClassVar[tuple[str, ...]] = ("pose_detection", "pose_landmark")

    @classmethod
    def capabilities_with(cls, options: base.Options) -> Capabilities:
        own = cast(MochaOptions, options)
        sizes = tuple(dict.fromkeys([own.size, own.size[::-1]]))
        change = {"frames_max": own.frames_max, "sizes": sizes, "gpus": 0.0 if own.device == "cpu" else 1.0}
        return cls.capabilities.model_copy(update=change)

    @classmethod
    def keyed(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The repository counts by its sources, our serving script and the weights by their content; where they lie does not count."""
        kept = {name: value for name, value in options.items() if name not in UNKEYED}
        kept |= {"program": digest_of_sources(str(options.get("repo", ""))), "server": digest_of_file(str(SERVE))}
        return kept | {name: digest_of_weights(str(options[name])) for name in ("weights", "checkpoint") if options.get(name)}

    @classmethod
    def missing(cls, options: base.Options | None = None) -> list[str]:
        """Also the interpreter, the repository and the weights."""
        out = super().missing(options)
        if not isinstance(options, MochaOptions) or _unsaid(options):
            return [*out, "no MoCha: its options say where it is installed"]
        places = (options.python, options.repo, options.weights, options.checkpoint)
        return out + [f"no {place}" for place in places if not Path(place).exists()]

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        own = self._set
        self._tracker = PeopleTracker()
        self._child = Child(
            [own.python, str(CHILD), str(SERVE)],
            load={"repo": own.repo, "wan": own.weights, "checkpoint": own.checkpoint, "device": own.device},
            env=own.env, load_timeout_s=own.load_timeout_s, silence_s=SILENCE_S,
        )  # fmt: skip

    @property
    def _set(self) -> MochaOptions:
        return cast(MochaOptions, self.options)

    def unsaid(self) -> list[str]:
        """Where MoCha is installed."""
        return _unsaid(self._set)

    def setup(self) -> None:
        """Load the pipeline in its own environment. Raises Transient where it or its weights are not on this machine."""
        if self._set.face:
            self._tracker.setup()
        try:
            self._child.start()
        except ChildDied as died:
            raise as_response(died) from died

    def end(self) -> None:
        """End the child. It also ends with this process."""
        self._child.end()

    # --- one request

    def size_for(self, request: VideoRequest) -> tuple[int, int]:
        """Height and width, turned like the clip."""
        return pictures.oriented(self._set.size, (request.geometry.height, request.geometry.width))

    def expected(self, request: VideoRequest) -> Written:
        """As the base, turned like the clip."""
        g = request.geometry
        need, made = frames_covering(g, g.fps), self.can.frames_for(g) or 0
        return Written((need, max(made, need + EXTRA_FRAMES)), g.fps, frozenset({self.size_for(request)}))

    def validate(self, request: VideoRequest) -> None:
        """As the base, and everybody must be in the clip's first frame, for only there is the model told who is to be replaced
        ("not_in_first_frame")."""
        super().validate(request)
        people, g = request.clip_people, request.geometry
        if (got := (people.frames, *people.size_hw)) != (want := (g.frames, g.height, g.width)):
            raise BadInput(f"the clip's people are given for T×H×W {got}, the pair is {want}; track the conformed clip", "people_mismatch")
        for i in range(people.count):
            if not _in_cells(self._first_mask(request, i)).any():
                raise BadInput(f"person {i} is not to be seen in the first frame, or too small; choose a span that begins with everybody",
                               "not_in_first_frame")  # fmt: skip

    def prepare(self, request: VideoRequest, folder: Path) -> VideoRequest:
        """Write each character's mask, reference and, where there is one, face at the model's size. Raises BadInput as `validate`."""
        self.validate(request)
        folder.mkdir(parents=True, exist_ok=True)
        height, width = self.size_for(request)
        made = {}
        for i, path in enumerate(request.painted):
            picture = media.read_image(path)
            close = self._close_up(picture, height, width) if self._set.face else None
            found = {"first_mask": self._first_mask(request, i), "reference": pictures.framed(picture, height, width), "face": close}
            for name, image in found.items():
                if image is not None:
                    made[f"{name}{i}"] = folder / f"{name}{i}.png"
                    media.write_png(made[f"{name}{i}"], image)
        return replace(request, inputs={**request.inputs, **made})

    def _first_mask(self, request: VideoRequest, person: int) -> Bytes:
        inside = regions.silhouettes(request.clip_people.masks_PTHW[person : person + 1])
        drawn = pictures.framed(regions.first_frame_mask(inside), *self.size_for(request), edges=False)
        return np.where(drawn < 128, np.uint8(0), np.uint8(255))

    def _close_up(self, picture: Bytes, height: int, width: int) -> Bytes | None:
        """The character's face in the middle, unstretched; None where there is none, it is small or looks aside."""
        self._tracker.setup()
        found = self._tracker.still(picture)
        if not found.count:
            return None
        person = found.only([main_person(found)])
        x0, y0, x1, y1 = faces.face_boxes(person, 0)[0]
        if y1 - y0 < FACE_LEAST_PX or abs(float(head_yaw_deg(person.world_PT33x3[0])[0])) > FRONTAL_DEG:
            return None
        scale = (y1 - y0) / FACE_SHARE / height  # of the picture's pixels to the close-up's
        move = np.array([[scale, 0, (x0 + x1 - scale * (width - 1)) / 2], [0, scale, (y0 + y1 - scale * (height - 1)) / 2]])
        how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(picture, move, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE), np.uint8)

    def run(self, request: VideoRequest, out: Path) -> Report:
        """Replace one after the other. `prepare` comes first. Raises Transient, OutOfMemory, OutOfSpace, BadOutput, or what the child
        met with."""
        if missing := [
            f"{n}{i}" for n in ("first_mask", "reference") for i in range(len(request.painted)) if f"{n}{i}" not in request.inputs
        ]:
            raise BadInput(f"the inputs {', '.join(missing)} are missing; call `prepare` before `run`, or `make`", "inputs_missing")
        frames = self._source(request)
        self.setup()
        due_s = time.monotonic() + self._set.timeout_s
        with own_folder(out) as folder:
            for i in range(len(request.painted)):
                frames = self._passed(request, i, frames, folder, due_s)
        media.write_video(out, frames, request.geometry.fps)
        faceless = self._set.face and any(f"face{i}" not in request.inputs for i in range(len(request.painted)))
        return Report(reasons=("no_face_close_up",) if faceless else ())

    def _source(self, request: VideoRequest) -> Bytes:
        """The clip at the model's size, 4n+1 frames; what is wanted beyond its end is the last frame, held."""
        frames, _ = media.read_frames(request.clip)
        size, count = self.size_for(request), self.can.frames_for(request.geometry)
        assert count is not None  # validate has refused it
        if len(frames) != request.geometry.frames:
            raise BadInput(
                f"the clip has {len(frames)} frames, the pair {request.geometry.frames}; give the conformed clip", "frames_mismatch"
            )
        small = np.stack([pictures.framed(frame, *size) for frame in frames])
        return np.asarray(small[np.minimum(np.arange(count), len(small) - 1)])

    def _passed(self, request: VideoRequest, person: int, frames_THWC: Bytes, folder: Path, due_s: float) -> Bytes:
        own, given = self._set, request.inputs
        files = {"source": frames_THWC, "mask": media.read_image(given[f"first_mask{person}"])[..., 0]}
        files["first"] = media.read_image(given[f"reference{person}"])
        if f"face{person}" in given:
            files["second"] = media.read_image(given[f"face{person}"])
        paths = {name: folder / "in" / f"{name}{person}.rgb" for name in files}
        for name, pixels in files.items():
            paths[name].write_bytes(np.ascontiguousarray(pixels).tobytes())
        made = folder / "out" / f"{person}.rgb"
        message = {
            **{name: str(path) for name, path in paths.items()}, "out": str(made), "shape": list(frames_THWC.shape[:3]),
            "prompt": request.prompt if own.prompted and request.prompt else " ", "negative": own.negative, "steps": own.steps,
            "guidance": own.guidance, "shift": own.shift, "seed": (request.seed + person) % SEEDS,
        }  # fmt: skip
        try:
            said = self._child.call(message, max(0.1, due_s - time.monotonic()))
        except ChildDied as died:
            raise as_response(died) from died
        return _read(made, said.get("shape"), frames_THWC.shape)


def _unsaid(options: MochaOptions) -> list[str]:
    return [name for name in ("python", "repo", "weights", "checkpoint") if not getattr(options, name)]


def _in_cells(mask_HWC: Bytes) -> np.ndarray:
    """Which cells of the latent are white, as the serving script decides it."""
    height, width = mask_HWC.shape[:2]
    return np.asarray(mask_HWC[..., 0].reshape(height // SCALE, SCALE, width // SCALE, SCALE).mean(axis=(1, 3)) > 127.5)


def _read(path: Path, told: object, shape: tuple[int, ...]) -> Bytes:
    """What a pass wrote. Raises BadOutput when it is not there, not whole, or has another shape than the source."""
    if path.is_symlink() or not path.is_file() or not path.stat().st_size:
        raise BadOutput("MoCha came back and wrote nothing", "no_output")
    if told != list(shape):
        got = tuple(told) if isinstance(told, list) else told
        code = "wrong_frames" if isinstance(told, list) and told[1:] == list(shape[1:]) else "wrong_size"
        raise BadOutput(f"MoCha made T×H×W×C {got} of a source of {shape}", code)
    if path.stat().st_size != int(np.prod(shape)):
        raise BadOutput(f"MoCha wrote {path.stat().st_size} bytes, {int(np.prod(shape))} were told", "half_written")
    return np.fromfile(path, np.uint8).reshape(shape)
