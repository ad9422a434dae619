"""A study, summed up."""

from searchae.report.summary import Summary, TrialRow, summarize, trial_row

__all__ = ["Summary", "TrialRow", "summarize", "trial_row"]
