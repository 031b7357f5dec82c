"""Steps that only preference pairs need."""

from __future__ import annotations

from factory.steps import TRACKER, step
from factory.workbench import Workbench
from manifests import media
from manifests.errors import Rejected
from manifests.records import Artifact, Frozen


class PaintedRequest(Frozen):
    picture: Artifact


class PaintedPerson(Frozen):
    arrays: Artifact
    """People arrays of the picture's one person"""


@step(depth=8, tools=(TRACKER,))
def find_painted(request: PaintedRequest, bench: Workbench) -> PaintedPerson:
    """The person of a painted picture, whom the reference mask is drawn around. Rejects a picture that does not show exactly one."""
    people = bench.tracker.still(media.read_image(bench.file(request.picture)))
    if people.count != 1:
        raise Rejected(f"the painted picture shows {people.count} people, a reference shows one", "several_people")
    return PaintedPerson(arrays=bench.keep_people(people))
