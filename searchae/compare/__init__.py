"""Which choice of a parameter wins, and which trial, over new seeds on the test split."""

from searchae.compare.page import HEAD, cells
from searchae.compare.ranking import Ranking
from searchae.compare.run import Comparison, Reranking, TrainingSchedule
from searchae.compare.trainings import PlannedTraining
from searchae.compare.verdict import Verdict, notes_of

__all__ = [
    "HEAD",
    "Comparison",
    "PlannedTraining",
    "Ranking",
    "Reranking",
    "TrainingSchedule",
    "Verdict",
    "cells",
    "notes_of",
]
