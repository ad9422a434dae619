"""Compares the choices of parameters by matched experiments, and ranks the best trials again."""

from searchae.compare.choice_table import COMPARISON_HEADERS, comparison_cells
from searchae.compare.comparison import Comparison, ComparisonOptions
from searchae.compare.ranking import Ranking
from searchae.compare.rerank import Reranking, TopOptions
from searchae.compare.result import ComparisonResult
from searchae.compare.run import ComparisonRun

__all__ = [
    "COMPARISON_HEADERS",
    "Comparison",
    "ComparisonOptions",
    "ComparisonResult",
    "ComparisonRun",
    "Ranking",
    "Reranking",
    "TopOptions",
    "comparison_cells",
]
