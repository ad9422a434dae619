"""A study's report as one HTML file, and its trials as tables for other tools."""

from searchae.report.axes import epoch_axis, linear_ticks, log_axis, log_ticks
from searchae.report.drawing import (
    BAD_COLOUR,
    BEST_COLOUR,
    COMPLETE_COLOUR,
    GREY,
    PRUNED_COLOUR,
    Plot,
    blank_figure,
    escape_plotly_text,
    join_curves,
)
from searchae.report.figures import curves_plot, history_plot, losses_plot
from searchae.report.findings import (
    Findings,
    TrialRun,
    collect_findings,
    read_trial_runs,
    trial_run,
)
from searchae.report.frame import trial_rows, trials, write_csv, write_parquet
from searchae.report.html_parts import EMPTY_CELL, HtmlSection, html_plot, html_table, study_command
from searchae.report.importances import parameter_importances
from searchae.report.last_comparison import comparison_file, write_comparison_file
from searchae.report.notebook import figure_by_name, notebook_head, notebook_table
from searchae.report.page import html_document, write_report
from searchae.report.tensorboard import write_tensorboard

__all__ = [
    "BAD_COLOUR",
    "BEST_COLOUR",
    "COMPLETE_COLOUR",
    "EMPTY_CELL",
    "GREY",
    "PRUNED_COLOUR",
    "Findings",
    "HtmlSection",
    "Plot",
    "TrialRun",
    "blank_figure",
    "collect_findings",
    "comparison_file",
    "curves_plot",
    "epoch_axis",
    "escape_plotly_text",
    "figure_by_name",
    "history_plot",
    "html_document",
    "html_plot",
    "html_table",
    "join_curves",
    "linear_ticks",
    "log_axis",
    "log_ticks",
    "losses_plot",
    "notebook_head",
    "notebook_table",
    "parameter_importances",
    "read_trial_runs",
    "study_command",
    "trial_rows",
    "trial_run",
    "trials",
    "write_comparison_file",
    "write_csv",
    "write_parquet",
    "write_report",
    "write_tensorboard",
]
