"""A study as one HTML file, and its trials as tables for other tools."""

from searchae.report.drawing import (
    BAD,
    BEST,
    COMPLETE,
    GREY,
    PRUNED,
    Plot,
    blank_figure,
    escaped,
    log_axis,
)
from searchae.report.figures import curves_plot, history_plot, losses_plot
from searchae.report.findings import Findings, Run, collect_findings, comparison_file, run_of
from searchae.report.frame import trials, write_csv, write_parquet
from searchae.report.markup import NONE, Section, plot, table
from searchae.report.page import document, write_report
from searchae.report.tensorboard import write_tensorboard

__all__ = [
    "BAD",
    "BEST",
    "COMPLETE",
    "GREY",
    "NONE",
    "PRUNED",
    "Findings",
    "Plot",
    "Run",
    "Section",
    "blank_figure",
    "collect_findings",
    "comparison_file",
    "curves_plot",
    "document",
    "escaped",
    "history_plot",
    "log_axis",
    "losses_plot",
    "plot",
    "run_of",
    "table",
    "trials",
    "write_csv",
    "write_parquet",
    "write_report",
    "write_tensorboard",
]
