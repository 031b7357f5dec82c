"""What a job's decision stands on: with the same of it a finished job is taken from one row of the ledger, never replayed step by step."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields

from factory import loop, stages, steps
from factory.plan import Job
from generators import extractors, weights
from manifests.recipe import Recipe
from manifests.records import Candidate, digest_of

JUDGING = ("agents.checker", "agents.prompts", "agents.selector", "agents.weaver")
"""what decides on the driver, beside the loop itself"""
_BESIDE_THE_ID = sorted({field.name for field in fields(Job)} - {"id", "span", "slice", "task", "repeat", "shortlist"})
"""what neither the id nor the shortlist says of a job"""


class Asked:
    """Digests of everything that can change the decision on a job. The recipe's part is computed once."""

    def __init__(self, recipe: Recipe, recipe_digest: str) -> None:
        """`recipe_digest`: of what the recipe says about the dataset."""
        codes = [steps.code_of(spec.kind, spec.options) for _, spec in sorted(recipe.generators.items())]
        generators = sorted({module for modules, _ in codes for module in modules})
        generators += extractors.stands_on(extractors.Extraction.of(recipe.extractors)).modules
        tools = [tool.module for of in steps.TOOLS.values() for tool in of]
        self._candidates: dict[int, tuple[Candidate, str]] = {}
        """by identity; they are held, so that no other object gets it"""
        self._basis = digest_of(
            {
                "recipe": recipe_digest, "budget": recipe.budget_per_job.model_dump(mode="json"), "environment": steps.environment(),
                "code": steps.code_digest((*steps.WORK_MODULES, *tools, *JUDGING, *generators)),
                "loop": [steps.shape_of(ast.parse(inspect.getsource(module))) for module in (loop, stages)],
                "own": sorted({own for _, own in codes if own}),
                "weights": sorted(known.sha256 for known in weights.WEIGHTS.values()),
            }
        )  # fmt: skip

    def of(self, job: Job) -> str:
        """For one job. Its id says which span it is of; a candidate is shared by many jobs, so its digest is computed once."""
        beside = [getattr(job, name) for name in _BESIDE_THE_ID]
        return digest_of([self._basis, job.id, beside, "".join(map(self._of_candidate, job.shortlist))])

    def _of_candidate(self, candidate: Candidate) -> str:
        known = self._candidates.get(id(candidate))
        if known is None:
            known = self._candidates[id(candidate)] = candidate, digest_of(candidate)
        return known[1]
