"""A small recipe over two real clips, and calling the command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RECIPE = """
recipe: tiny
seed: 3
geometry: {{frames: 9, fps: 16, sizes: [[512, 288], [288, 512]]}}
sources: [{{clips: {clips}, spans_per_clip: 1, licence: bsd-3-clause}}]
gallery: {{characters: {characters}}}
split: {{validation_fraction: 0, validation_groups: [other, drawn-b, drawn-d]}}
reference: {{min_gap_s: 0.5}}
slices:
  walk:  {{task: animation,   generator: puppet, quota: 2, repeats: 2, where: {{people: 1}}}}
  swap:  {{task: replacement, generator: puppet30, quota: 2, repeats: 2, where: {{people: 1}}}}
  poses: {{task: pose,        generator: skeleton, quota: 2}}
budget_per_job: {{candidates: 2, image_attempts: 2, video_attempts: 1}}
generators:
  painter:  {{kind: collage}}
  puppet:   {{kind: puppet}}
  puppet30: {{kind: puppet, fps: 30}}
  skeleton: {{kind: skeleton}}
pools: {{cpu: {{workers: 2, cpus: 1, timeout_s: 300}}}}
"""


@dataclass(frozen=True)
class Material:
    """A recipe file and what it reads."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def clips(self) -> Path:
        return self.folder / "clips"

    def copy_to(self, folder: Path) -> Material:
        """The same material elsewhere, with a recipe that reads from there."""
        shutil.copytree(self.folder, folder)
        made = Material(folder)
        made.recipe.write_text(RECIPE.format(clips=made.clips, characters=folder / "characters"))
        return made


@dataclass(frozen=True)
class Finished:
    """A run's folder and what the command printed."""

    out: Path
    printed: str


def motionpair(*arguments: object) -> list[str]:
    """The command line of `motionpair`."""
    return [sys.executable, "-m", "factory.cli", *map(str, arguments)]


def call(*arguments: object, code: int = 0) -> str:
    """Run `motionpair` to its end; both streams as one text. Fails on another exit code."""
    done = subprocess.run(motionpair(*arguments), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path → bytes of all files."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
