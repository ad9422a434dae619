"""Trains a study's trial again, over several seeds, and measures it on the test split.

Any other list of trainings is run by :class:`ListRun`.
"""

from searchae.retrain.list_run import ListRun, Plan, RecordFolder, Results, TrainingResult
from searchae.retrain.outcome import train_bundle
from searchae.retrain.plan import RetrainPlan, find_trial, plan_retraining

__all__ = [
    "ListRun",
    "Plan",
    "RecordFolder",
    "Results",
    "RetrainPlan",
    "TrainingResult",
    "find_trial",
    "plan_retraining",
    "train_bundle",
]
