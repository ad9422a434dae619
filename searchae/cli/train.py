"""``searchae train``: retrains a trial and keeps it as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae import malloc
from searchae.cli.database import open_study, storage_url
from searchae.cli.fleet import (
    LauncherOption,
    NumberPerDeviceOption,
    RayAddressOption,
    SlurmOption,
    WorkersOption,
    choose_launcher,
)
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.options import (
    DEFAULT_STORAGE,
    ArtifactsOption,
    DataDirOption,
    DeviceOption,
    JsonOption,
    RecordedPrecisionOption,
    StorageOption,
    StudyNameOption,
    examples,
    threads_option,
)
from searchae.cli.own_net import FactoryOption, allow_net
from searchae.cli.results import print_result
from searchae.cli.signals import polled_stop
from searchae.formatting import format_count

if TYPE_CHECKING:
    from searchae.launch import FleetRequest, Launcher
    from searchae.retrain import RetrainPlan
    from searchae.study import StoredStudy

app = typer.Typer()

OutOption = Annotated[Path, typer.Option(metavar="DIR", help="The bundle's folder.")]
TrialOption = Annotated[
    str,
    typer.Option(
        metavar="best|winner|compared|N",
        help="The search's best, the winner of compare --top, the best setting of compare, or "
        "a number.",
    ),
]
EpochsOption = Annotated[
    str,
    typer.Option(
        metavar="E|search",
        help="Most epochs; a plateau ends it earlier. search: as in the search.",
        show_default="100, or the study's if more",
    ),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        metavar="E",
        min=0,
        help="Stop after this many epochs without improvement; 0: never.",
        show_default="the study's, else 10",
    ),
]
TrainImagesOption = Annotated[
    str,
    typer.Option(
        metavar="N|all",
        help="Images to use, including those for validation; for a search on a part of the data.",
        show_default="the study's",
    ),
]
ValidationOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE", help="Share of them that is held out.", show_default="the study's"
    ),
]
SeedsOption = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="Trainings, each with the next seed, on the same splits."
    ),
]
ThreadsOption = Annotated[
    int | None,
    threads_option(
        "CPU threads of each worker. As many as the trial had reproduce it exactly.",
        show_default="as many as the trial had",
    ),
]


@app.command(
    epilog=examples(
        "searchae train -s quickstart --out best",
        "searchae train -s svhn --trial 17 --epochs 200 --seeds 5 --out svhn-17",
        "searchae train -s quickstart --epochs search --out same",
    )
)
def train(
    study: StudyNameOption,
    out: OutOption,
    trial: TrialOption = "best",
    epochs: EpochsOption = "",
    patience: PatienceOption = None,
    train_images: TrainImagesOption = "",
    validation: ValidationOption = None,
    seeds: SeedsOption = 1,
    workers: WorkersOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    artifacts: ArtifactsOption = Path("artifacts"),
    device: DeviceOption = "auto",
    workers_per_device: NumberPerDeviceOption = 1,
    threads: ThreadsOption = None,
    precision: RecordedPrecisionOption = None,
    launcher: LauncherOption = "local",
    ray_address: RayAddressOption = "auto",
    slurm: SlurmOption = None,
    factory: FactoryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Train the best trial anew and measure it on the test split.

    The result is a bundle: a folder with the weights, the metrics and pictures. The weights
    kept are those after the best validation epoch of the first seed, which is the study's own.
    Trainings are trials of the study NAME.trainings: workers share them, and what was trained
    is kept. Run the same command again after an interruption: it continues from the last epoch.
    With more --seeds only the new ones are trained.
    """
    malloc.configure_malloc()
    with importing():
        quiet_optuna()
        from searchae.launch import FleetRequest, available_cores
        from searchae.retrain import plan_retraining
        from searchae.training import pick_device

    url = storage_url(storage)
    stored = open_study(url, study)
    allow_net(factory, stored)
    chosen = choose_launcher(
        launcher, artifacts=artifacts, label=study, ray_address=ray_address, slurm=slurm or ()
    )
    plan = plan_retraining(
        stored,
        trial=trial,
        epochs=epochs,
        patience=patience,
        train_images=train_images,
        validation=validation,
        seeds=seeds,
        device=pick_device(device if chosen.is_local else "cpu"),
        threads=threads,
        precision=precision,
    )
    request = FleetRequest(
        storage=url,
        workers=workers or min(seeds, max(1, available_cores() // plan.threads)),
        workers_per_device=workers_per_device,
        threads=plan.threads,
        device=device,
        data_dir=data_dir,
        artifacts=artifacts,
    )
    _print_notes(plan, stored, hint_at_winner=trial == "best")
    _train(plan, out, request, chosen, as_json=as_json)


def _print_notes(plan: RetrainPlan, stored: StoredStudy, *, hint_at_winner: bool) -> None:
    """Prints what will be trained, and a hint if the comparison over seeds had another winner."""
    from searchae.cli.console import print_note
    from searchae.study import WINNER

    seeds = format_count(len(plan.seeds), "seed")
    print_note(
        f"trial {plan.trial.number}{'' if plan.is_searched else f' of {plan.study}'}: at most "
        f"{format_count(plan.params.train.epochs, 'epoch')}, {seeds}, on "
        f"{plan.device} with {format_count(plan.threads, 'thread')}"
    )
    train, searched = plan.params.train, stored.spec.epochs
    if train.schedule == "cosine" and train.epochs != searched:
        print_note(
            f'schedule = "cosine": the learning rate falls over {train.epochs} epochs, not over '
            f"the search's {searched}, so that it is another one from the second epoch on; "
            "--epochs search trains as the search did"
        )
    winner = stored.study.user_attrs.get(WINNER, {}).get("number", plan.trial.number)
    if hint_at_winner and winner != plan.trial.number:
        print_note(f"over seeds trial {winner} was better: --trial winner takes that one")


def _train(
    plan: RetrainPlan, out: Path, request: FleetRequest, launcher: Launcher, *, as_json: bool
) -> None:
    from searchae.cli.console_bundle import EpochLines, print_trained
    from searchae.retrain import train_bundle

    with EpochLines(plan.params.train.epochs) as lines:
        metrics = train_bundle(
            plan, out=out, request=request, launcher=launcher, watcher=lines, stop=polled_stop()
        )
    print_result(lambda: metrics, lambda: print_trained(metrics), as_json=as_json)
