"""Bytes by their own digest, and what every step answered, on any filesystem that fsspec knows.

Layout below the store's address (`objects` and `outcomes` are split by the first two hex digits)::

    objects/ab/<sha256><suffix>      artifacts
    outcomes/cd/<key>.json           one file a finished step
    calls/cd/<key>/<id>.json         one file a request to a language model, by the step that asked
    probe/<id>                       while a run makes sure that all nodes reach the store
    tmp/                             half-written files; local stores only

A file appears under its name only when it is whole: locally through `os.replace`/`os.link`, on object stores because an upload is atomic;
nothing is ever renamed there. So any process may be killed at any time, and two processes may write the same thing.
"""

from __future__ import annotations

from manifests.store.content import Probe, Store, answer_probe
from manifests.store.disk import CHUNK_BYTES
from manifests.store.outcomes import Cost, Outcome
from manifests.store.remote import PASSED_ON

__all__ = ["CHUNK_BYTES", "PASSED_ON", "Cost", "Outcome", "Probe", "Store", "answer_probe"]
