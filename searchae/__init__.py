"""searchae: hyperparameter search for image autoencoders.

The way through the house, in the order of a search::

    studies/svhn.toml -> spec -> claim a trial (ledger) -> sample its parameters (space)
      -> train, epoch by epoch (training) -> report and prune (objective) -> tell (worker)
      -> summary (report)
"""

__version__ = "0.1.0"
