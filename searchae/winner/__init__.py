"""The winner: a trial retrained for longer, over several seeds, measured once on the test split.

The seeds decide initialisation, shuffling and noise; the splits stay the study's. The weights
kept of a training are those after its best validation epoch; the bundle holds the first seed's,
which is the study's own, so that the search's numbers come back.

``choice`` says what is trained, ``training`` trains it, ``outcome`` measures it and writes the
bundle.
"""

from searchae.winner.choice import Plan, find, plan
from searchae.winner.outcome import FILES, train
from searchae.winner.training import BAD_ENDS, Retrained, reproduction, retrain

__all__ = [
    "BAD_ENDS",
    "FILES",
    "Plan",
    "Retrained",
    "find",
    "plan",
    "reproduction",
    "retrain",
    "train",
]
