"""Trains a study's trial again, over several seeds, and measures it on the test split."""

from searchae.retrain.outcome import train_bundle
from searchae.retrain.plan import RetrainPlan, find_trial, plan_retraining

__all__ = [
    "RetrainPlan",
    "find_trial",
    "plan_retraining",
    "train_bundle",
]
