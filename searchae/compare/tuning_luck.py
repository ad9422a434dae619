"""What a comparison owes to luck in tuning: another tuning may find other learning rates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NODES = 48


def tuning_variance(scores_db: Floats, seed_variance: float) -> float:
    """Returns the variance of what a final comes to, over repeated finals, in dB^2.

    A final compares one training of each point. With normal noise of the same variance for all,
    point ``i`` wins with the probability ``P_i = E[prod_j Phi(x + (m_i - m_j) / s)]`` over a
    standard normal ``x`` (Thurstone's case V; Gauss-Hermite quadrature). The result is the variance
    of ``m`` under these probabilities. For ``m`` stand the PSNRs that were seen: over many finals,
    whose gaps are of all sizes, their own noise makes some gaps smaller and others larger, and the
    mean is about right. What decides which points come into a final is not counted.

    Args:
        scores_db: Validation PSNR of each point of the final, in dB; not finite where one failed.
        seed_variance: Variance of a training over seeds, in dB^2.
    """
    from scipy import special

    seen = scores_db[np.isfinite(scores_db)]
    if len(seen) < 2 or not seed_variance > 0:
        return 0.0
    x, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    gaps = (seen[:, None] - seen[None, :]) / np.sqrt(seed_variance)
    below = special.ndtr(x + gaps[..., None])
    below[np.diag_indices(len(seen))] = 1.0
    wins = (below.prod(1) * weights).sum(1)
    wins /= wins.sum()
    return float(wins @ (seen - wins @ seen) ** 2)
