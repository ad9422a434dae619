"""How long a training has to be to tell which learning rate is best in the end.

    python -m benchmarks.tuning_length sqlite:///searchae.db svhn

Reads the trainings that ``searchae compare`` has made of a study. Of each net that was trained to
the end with several learning rates, it takes the rate that is best after so many epochs, and
prints how much less that one comes to than the best: means over the nets.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from searchae.study import TRAINING

LEARNED_DB = 1.0
"""A net counts where one of its rates gains so much over the first epoch."""
CUTS = (0.15, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0)
"""Shares of the longest training's epochs."""


def main() -> None:
    """Reads the trainings and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("storage", help="the URL of the database")
    parser.add_argument("study")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    listed = optuna.load_study(study_name=f"{options.study}.trainings", storage=options.storage)
    trials = listed.get_trials(states=(TrialState.COMPLETE,))
    most = max(t.user_attrs[TRAINING]["train"]["epochs"] for t in trials)
    print(table(trials, most))


def table(trials: list[FrozenTrial], most: int) -> str:
    """Returns the regrets as text.

    Args:
        trials: The trainings.
        most: The epochs of the longest; shorter ones do not count.
    """
    nets: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for trial in trials:
        training = trial.user_attrs[TRAINING]
        if training["train"]["epochs"] == most and not training["is_tested"]:
            steps = sorted(trial.intermediate_values.items())
            curve = [psnr_db for _, psnr_db in steps]
            tuned = {k: training["train"][k] for k in ("learning_rate", "l1_weight", "momentum")}
            nets[training["group"]].setdefault(str(tuned), curve)
    several = [net for net in nets.values() if len(net) > 1 and _learns(net)]
    lines = [f"{len(several)} nets, {sum(map(len, several))} trainings of at most {most} epochs"]
    for share in CUTS:
        epochs = round(share * most)
        regrets = [_regret(net, epochs) for net in several]
        if regrets:
            mean, worst = sum(regrets) / len(regrets), max(regrets)
            lines.append(f"after {epochs:3d} epochs: {mean:.2f} dB, at most {worst:.2f} dB")
    return "\n".join(lines)


def _learns(net: Mapping[str, list[float]]) -> bool:
    return max(max(curve) for curve in net.values()) > LEARNED_DB + min(
        curve[0] for curve in net.values()
    )


def _regret(net: Mapping[str, list[float]], epochs: int) -> float:
    picked = max(net.values(), key=lambda curve: max(curve[:epochs]))
    return max(map(max, net.values())) - max(picked)


if __name__ == "__main__":
    main()
