"""The section ``[search]`` of a study file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from searchae.config.section import MOST, NotNegative, Positive, Section

ObjectiveName = Literal["psnr", "sparsity", "parameters", "latent_dim"]

_BY_HALVES = ("successive-halving", "asha")


class SearchSpec(Section):
    """How the space is searched: ``[search]``.

    Attributes:
        trials: The budget: how many trials have to end COMPLETE or PRUNED.
        objectives: What is optimized: ``psnr`` first, then any of ``sparsity`` (maximized),
            ``parameters`` and ``latent_dim`` (minimized). With several, nothing is pruned.
        sampler: ``tpe``, ``random`` or ``gp``; ``nsga2`` for several objectives.
        pruner: ``successive-halving``, ``hyperband``, ``median``, ``asha`` or ``none``. ``asha``
            pauses trials that the first one would end: see ``search/promotion.py``. The default
            was chosen by measurement: ``benchmarks/defaults.md``.
        min_epochs: Epochs that a trial runs before it can be pruned. Where a study does not give
            it, ``tune`` chooses so many that they have 25 training steps: ``tuning/first_rung.py``.
        first_report: The share of the first epoch after which a trial reports its PSNR first, and
            can be pruned: 1 divided by a power of ``reduction_factor``, such as 0.125. It then
            reports after each share that is a rung, measured on a sample of the validation
            images. For long epochs.
        reduction_factor: For successive halving and asha (default 2) and hyperband (default 3): one
            in this many trials is promoted at each rung.
        startup_trials: Trials that are sampled at random before the sampler uses their results;
            with ``nsga2`` (default 20, else 10) the size of its population.
        min_trials_per_choice: Trials that each choice of a searched parameter with two to eight
            choices gets, bad ones too; 0 for as many as the sampler gives it. See
            ``search/choice_floor.py``. Not in a random search.
        first: The trials that the search begins with, in this order, each as searched parameter ->
            value. Parameters that are left out are sampled.
        midpoint_first: Whether a search without ``first`` begins with the middle of the space: the
            middle of each range and the first of each list of choices. Never in a random search
            or after a warm start.
        heartbeat_s: Seconds between two heartbeats of a worker.
        grace_s: Seconds without a heartbeat after which a trial is given to another worker.
        max_attempts: How many workers of a trial may die before the trial fails.
        max_parameters: Nets with more trainable parameters than this are not trained: other
            parameters are sampled instead.
        max_paused: For asha: how many trials may be paused at a time, each with a checkpoint. Above
            it the least promising ones are pruned.
        max_paused_gb: For asha: how many GB (1e9 bytes) their checkpoints may take, likewise.
        stop_when_stable: End the search once this many trials in a row are no better than the best
            one before by at least 0.05 dB, whatever is left of ``trials``. By default it has all.
    """

    later_keys = frozenset(
        {
            "first_report",
            "max_parameters",
            "max_paused",
            "max_paused_gb",
            "objectives",
            "stop_when_stable",
        }
    )

    trials: Positive = 100
    objectives: tuple[ObjectiveName, ...] = ("psnr",)
    sampler: Literal["tpe", "random", "gp", "nsga2"] = "tpe"
    pruner: Literal["successive-halving", "hyperband", "median", "asha", "none"] = (
        "successive-halving"
    )
    min_epochs: Positive = 1
    first_report: float = Field(1.0, gt=0, le=1)
    reduction_factor: int = Field(
        default_factory=lambda so_far: 2 if so_far["pruner"] in _BY_HALVES else 3,
        ge=2,
        le=MOST,
    )
    startup_trials: int = Field(
        default_factory=lambda so_far: 20 if so_far["sampler"] == "nsga2" else 10, ge=0, le=MOST
    )
    min_trials_per_choice: NotNegative = 6
    first: tuple[dict[str, Any], ...] = ()
    midpoint_first: bool = True
    heartbeat_s: float = Field(20.0, gt=0)
    grace_s: float = Field(300.0, gt=0)
    max_attempts: Positive = 3
    max_parameters: Positive | None = None
    max_paused: Positive = 32
    max_paused_gb: float = Field(10.0, gt=0)
    stop_when_stable: Positive | None = None

    @property
    def reports_per_epoch(self) -> int:
        """The unit of Optuna's steps: a trial's report after E epochs is step E times this."""
        return round(1 / self.first_report)

    @property
    def first_rung(self) -> int:
        """The first step at which a trial can be pruned."""
        return 1 if self.first_report < 1 else self.min_epochs

    @property
    def report_shares(self) -> tuple[float, ...]:
        """The shares of the first epoch after which a trial reports; none by default."""
        found, step = list[float](), 1
        while step < self.reports_per_epoch:
            found.append(step / self.reports_per_epoch)
            step *= self.reduction_factor
        return tuple(found)

    def epochs_at(self, step: int) -> float:
        """Returns the epochs that a trial has trained at one of Optuna's steps."""
        epochs, rest = divmod(step, self.reports_per_epoch)
        return epochs + rest / self.reports_per_epoch if rest else epochs

    @property
    def pauses(self) -> bool:
        """Whether trials that are not among the best of their rung are paused."""
        return self.pruner == "asha" and not self.has_several_objectives

    @property
    def has_several_objectives(self) -> bool:
        """Whether there are objectives besides the PSNR."""
        return len(self.objectives) > 1
