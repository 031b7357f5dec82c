"""Weights of the networks behind LPIPS and FVD, which nobody may ship: the user says where they are.

`file:PATH`, `PATH` or `hf:OWNER/NAME/FILE`, each with `@SHA256` behind it where the digest is to be checked; what comes from a hub must
have one. The digests of what was used stand in evaluation.json.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators import weights
from manifests.errors import BadInput, BadRecipe

NAMES = {
    "lpips_backbone": "torchvision's AlexNet, ImageNet weights (alexnet-owt-7be5be79.pth)",
    "lpips_linear": "the linear layers of LPIPS v0.1 for AlexNet (alex.pth of the package lpips)",
    "fvd": "I3D, trained on Kinetics-400, as TorchScript (i3d_torchscript.pt of StyleGAN-V)",
}
"""what each name stands for"""
_SHA256 = re.compile(r"^(.*)@([0-9a-f]{64})$", re.IGNORECASE)


@dataclass(frozen=True)
class Backbone:
    """A file of weights that is here, and its digest."""

    path: Path
    sha256: str


def asked_for(texts: Iterable[str]) -> dict[str, str]:
    """`NAME=WHERE` texts as a table. Raises BadRecipe for other texts, names that do not exist, and a name given twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, where = text.partition("=")
        if name not in NAMES or not equals or not where or name in found:
            what = "is given twice" if name in found else f"allowed are {', '.join(f'{n}=WHERE' for n in NAMES)}"
            raise BadRecipe(f"--weights {text}: {what}.")
        found[name] = where
    return found


def bring(name: str, where: str) -> Backbone:
    """The file that `where` means. Raises BadInput when it can't be had or has another digest; Damaged for such a file from a hub."""
    match = _SHA256.match(where)
    uri, digest = (match[1], match[2].lower()) if match else (where, "")
    if uri.startswith("hf:"):
        return Backbone(_from_hub(name, uri, digest), digest)
    path = Path(uri.removeprefix("file:")).expanduser()
    if not path.is_file():
        raise BadInput(f"weights {name}: no file {path}; it should be {NAMES[name]}", "no_weights")
    found = sha256_of(path)
    if digest and digest != found:
        raise BadInput(f"weights {name}: {path} has SHA-256 {found[:12]}…, asked was {digest[:12]}…; fetch it again", "no_weights")
    return Backbone(path, found)


def _from_hub(name: str, uri: str, digest: str) -> Path:
    if not digest:
        raise BadInput(f"weights {name}: {uri} needs its digest behind it, as {uri}@SHA256: a hub's file may change", "no_weights")
    if uri.count("/") < 2:
        raise BadInput(f"weights {name}: {uri} is no file of a hub; give hf:OWNER/NAME/FILE", "no_weights")
    try:
        return weights.fetch(weights.Weight(uri=uri, sha256=digest, size=0, licence="the user's", origin="the user"))
    except (OSError, ValueError) as e:  # all of the hub's own errors are one of them
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise BadInput(f"weights {name}: {uri} can't be fetched: {first}", "no_weights") from e


def lacks(names: Iterable[str], given: Mapping[str, str]) -> str:
    """Which of these weights were not given, in words."""
    missing = [name for name in names if name not in given]
    return f"no weights: give --weights {' --weights '.join(f'{name}=WHERE' for name in missing)}" if missing else ""


def load_state(name: str, backbone: Backbone) -> dict[str, Any]:
    """A state dict of tensors out of a .pth or .safetensors file; nothing in it is executed. Raises BadInput when it is no such thing."""
    import torch

    try:
        if backbone.path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(backbone.path)
        else:
            state = torch.load(backbone.path, map_location="cpu", weights_only=True)
    except Exception as e:  # pickle, zip, struct: whatever a foreign file provokes
        raise BadInput(f"weights {name}: {backbone.path} holds no state dict ({type(e).__name__}); it should be {NAMES[name]}") from e
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise BadInput(f"weights {name}: {backbone.path} holds no state dict; it should be {NAMES[name]}", "no_weights")
    return state


def fill(module: Any, state: dict[str, Any], name: str, backbone: Backbone) -> None:
    """Load exactly these tensors into a module. Raises BadInput when names or shapes differ."""
    try:
        module.load_state_dict(state)
    except RuntimeError as e:
        said = " ".join(str(e).split())[:160]
        raise BadInput(f"weights {name}: {backbone.path} does not fit ({said}); it should be {NAMES[name]}", "no_weights") from e


def sha256_of(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
