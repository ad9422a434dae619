"""Compares the choices of parameters, or the best trials, by training them again with new seeds."""

from searchae.compare.page import COMPARISON_HEADERS, comparison_cells
from searchae.compare.ranking import Ranking
from searchae.compare.run import Comparison, Reranking, TrainingSchedule
from searchae.compare.trainings import PlannedTraining
from searchae.compare.verdict import Verdict, combined_notes

__all__ = [
    "COMPARISON_HEADERS",
    "Comparison",
    "PlannedTraining",
    "Ranking",
    "Reranking",
    "TrainingSchedule",
    "Verdict",
    "combined_notes",
    "comparison_cells",
]
