"""What a search answers: which choice of a parameter wins, and which trial, over seeds.

The best trials of each side are chosen by their search PSNR on the validation split, trained
anew over the same new seeds, and compared on the test split. ``choice`` says what is trained,
``trainings`` trains it and keeps it, ``statistics`` decides what is shown, ``verdict`` says it,
``ranking`` ranks a study's best again, ``page`` and ``figures`` draw.
"""

from searchae.compare.choice import Contest, choose, chosen_top
from searchae.compare.ranking import Ranking, rank
from searchae.compare.trainings import Library
from searchae.compare.verdict import Verdict, judge

__all__ = ["Contest", "Library", "Ranking", "Verdict", "choose", "chosen_top", "judge", "rank"]
