"""What a search answers: which choice of a parameter wins, and which trial, over seeds.

The best trials of each side are chosen by their search PSNR on the validation split, trained
anew over the same new seeds, and compared on the test split. ``choice`` says what is trained,
``trainings`` trains it, ``record`` keeps it, ``statistics`` decides what is shown, ``verdict``
says it, ``ranking`` ranks a study's best again, ``figures`` and ``page`` draw; ``usecase`` ties
them together.
"""

from searchae.compare.usecase import Compare, Rerank, Schedule

__all__ = ["Compare", "Rerank", "Schedule"]
