"""Trains a study's trial again, over several seeds, and measures it on the test split."""

from searchae.retrain.outcome import train_bundle
from searchae.retrain.plan import RetrainPlan, plan_retraining
from searchae.retrain.training import FAILURE_VERBS, RetrainResult, retrain_once

__all__ = [
    "FAILURE_VERBS",
    "RetrainPlan",
    "RetrainResult",
    "plan_retraining",
    "retrain_once",
    "train_bundle",
]
