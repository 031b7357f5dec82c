"""What a job's decision stands on: with the same of it a finished job is taken from one row of the ledger, never replayed step by step."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from factory import loop, stages, steps
from factory.plan import Job
from generators import registry, weights
from manifests.recipe import Recipe
from manifests.records import digest_of

JUDGING = ("agents.checker", "agents.prompts", "agents.selector", "agents.weaver")
"""what decides on the driver, beside the loop itself"""


class Asked:
    """Digests of everything that can change the decision on a job. The recipe's part is computed once."""

    def __init__(self, recipe: Recipe, recipe_digest: str) -> None:
        """`recipe_digest`: of what the recipe says about the dataset."""
        specs = [spec for _, spec in sorted(recipe.generators.items())]
        classes = {spec.kind: registry.class_of(spec.kind, spec.options) for spec in specs}
        own = sorted({Path(inspect.getfile(made)) for kind, made in classes.items() if kind not in registry.BUILTIN})
        builtin = tuple(sorted({registry.class_of(spec.kind, spec.options).__module__ for spec in specs if spec.kind in registry.BUILTIN}))
        self._basis = digest_of(
            {
                "recipe": recipe_digest, "budget": recipe.budget_per_job.model_dump(mode="json"), "environment": steps.environment(),
                "code": steps.code_digest((*steps.WORK_MODULES, *JUDGING, *builtin)),
                "loop": [steps.shape_of(ast.parse(inspect.getsource(module))) for module in (loop, stages)],
                "own": [path.read_text(encoding="utf-8") for path in own],
                "weights": sorted(known.sha256 for known in weights.WEIGHTS.values()),
            }
        )  # fmt: skip

    def of(self, job: Job) -> str:
        """For one job."""
        return digest_of([self._basis, job.model_dump(mode="json")])
