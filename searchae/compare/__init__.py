"""Compares the choices of parameters by matched experiments, and ranks the best trials again."""

from searchae.compare.comparison import Comparison, ComparisonOptions
from searchae.compare.page import COMPARISON_HEADERS, comparison_cells
from searchae.compare.penalty_curve import PenaltyCurve
from searchae.compare.ranking import Ranking
from searchae.compare.rerank import Reranking, TopOptions
from searchae.compare.run import ComparisonRun
from searchae.compare.verdict import Verdict, best_setting, combined_notes

__all__ = [
    "COMPARISON_HEADERS",
    "Comparison",
    "ComparisonOptions",
    "ComparisonRun",
    "PenaltyCurve",
    "Ranking",
    "Reranking",
    "TopOptions",
    "Verdict",
    "best_setting",
    "combined_notes",
    "comparison_cells",
]
