"""Stops trainings that fall far behind others of their group, which differ in tuned values only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

RUNGS = ((1 / 8, 4.0), (1 / 4, 2.0), (1 / 2, 1.0))
"""Share of the epochs, and by how many dB a training may be behind the best one there.

Learning curves of different learning rates cross: a low rate starts slowly, a high one ends in
noise. So the margin is wide at first, and in the second half nothing is stopped.
"""


def falls_behind(
    own: Mapping[int, float], others: Iterable[Mapping[int, float]], epochs: int
) -> bool:
    """Returns whether a training is to be stopped after its last epoch.

    Args:
        own: Its validation PSNR in dB by epoch.
        others: The same of the other trainings of its group, as far as they have come.
        epochs: The epochs of a full training.
    """
    if not own:
        return False
    epoch = max(own)
    margins_db = {max(1, math.ceil(share * epochs)): margin for share, margin in RUNGS}
    if epoch not in margins_db:
        return False
    best_db = max((curve[epoch] for curve in others if epoch in curve), default=-math.inf)
    return own[epoch] < best_db - margins_db[epoch]
