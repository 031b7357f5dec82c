"""The Fréchet distance between two sets of features, each taken for a normal distribution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def frechet_distance(a_ND: Doubles, b_MD: Doubles) -> float:
    """‖μ_a − μ_b‖² + Tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), the squared 2-Wasserstein distance of two normal distributions (Dowson & Landau 1982);
    FVD when the features are I3D's (Unterthiner et al. 2018). Covariances divide by N − 1.

    The trace of the root is taken as the sum of the roots of the eigenvalues of Σ_a^½ Σ_b Σ_a^½, which is symmetric and has the same
    ones: nothing becomes complex and nothing is added to the diagonal when there are fewer samples than features, as there always are here.
    Raises ValueError below two samples in a set, and for sets of another width.
    """
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1] or min(len(a_ND), len(b_MD)) < 2:
        raise ValueError(f"expected (N ≥ 2, D) and (M ≥ 2, D), got {a_ND.shape} and {b_MD.shape}")
    (mean_a, cov_a), (mean_b, cov_b) = ((x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (a_ND, b_MD))
    return frechet_of(mean_a, cov_a, mean_b, cov_b)


def frechet_of(mean_a: Doubles, cov_a: Doubles, mean_b: Doubles, cov_b: Doubles) -> float:
    """The same of known means (D,) and covariances (D, D)."""
    values, vectors = np.linalg.eigh(cov_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    root_trace = float(np.sqrt(np.maximum(shared, 0)).sum())
    distance = float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root_trace)
    return max(0.0, distance)  # rounding may leave a zero slightly negative
