"""A study, summed up: ``summary`` for every table, ``findings`` for the report and its exports.

``figures`` and ``parameters`` draw with ``drawing``; ``sections`` and ``page`` make the HTML file;
``frame`` and ``tensorboard`` hand the trials to other tools.
"""

from searchae.report.summary import Summary, TrialRow, summarize, trial_row

__all__ = ["Summary", "TrialRow", "summarize", "trial_row"]
