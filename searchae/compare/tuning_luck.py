"""What a comparison owes to luck in tuning: another tuning may find other learning rates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NODES = 48


def tuning_variance(scores_db: Floats, seed_variance: float, seeds: npt.ArrayLike = 1) -> float:
    """Returns the variance of what a final comes to, over repeated finals, in dB^2.

    A final compares trainings of each point. With normal noise of the deviations ``s_i``, point
    ``i`` wins with the probability ``P_i = E[prod_j Phi((m_i - m_j + s_i x) / s_j)]`` over a
    standard normal ``x`` (Thurstone's model of comparative judgement; Gauss-Hermite quadrature).
    The result is the variance of ``m`` under these probabilities. For ``m`` stand the PSNRs that
    were seen: over many finals, whose gaps are of all sizes, their own noise makes some gaps
    smaller and others larger, and the mean is about right. All points are taken to have the same
    noise, and what decides which of them come into a final is not counted.

    Args:
        scores_db: Mean validation PSNR of each point of the final, in dB; not finite where one
            failed.
        seed_variance: Variance of a training over seeds, in dB^2.
        seeds: Number of each point's trainings.
    """
    from scipy import special

    known = np.isfinite(scores_db)
    seen, count = scores_db[known], np.broadcast_to(seeds, scores_db.shape)[known]
    if len(seen) < 2 or not seed_variance > 0:
        return 0.0
    x, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    s = np.sqrt(seed_variance / count)
    below = (seen[:, None, None] - seen[:, None] + s[:, None, None] * x) / s[:, None]
    chances = special.ndtr(below)
    chances[np.diag_indices(len(seen))] = 1.0
    wins = (chances.prod(1) * weights).sum(1)
    wins /= wins.sum()
    return float(wins @ (seen - wins @ seen) ** 2)
