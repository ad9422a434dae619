"""A trial trained again: for longer, over several seeds, measured once on the test split."""

from searchae.retrain.outcome import train_bundle
from searchae.retrain.plan import RetrainPlan, plan_retraining
from searchae.retrain.training import BAD_ENDS, Retraining, retrain_once

__all__ = [
    "BAD_ENDS",
    "RetrainPlan",
    "Retraining",
    "plan_retraining",
    "retrain_once",
    "train_bundle",
]
