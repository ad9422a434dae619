"""``searchae train``: retrains a trial and keeps it as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchae.cli.database import open_study, storage_url
from searchae.cli.fleet import (
    HostsOption,
    InstallOption,
    LauncherOption,
    NumberPerDeviceOption,
    RayAddressOption,
    SkipUnfitOption,
    SlurmOption,
    TunnelOption,
    WorkersOption,
    chosen_launcher,
)
from searchae.cli.lazy_imports import importing, quiet_optuna
from searchae.cli.notify import NotifyOption, take_urls
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
from searchae.cli.own_net import FactoryOption
from searchae.cli.results import print_result
from searchae.cli.signals import polled_stop
from searchae.cli.track import TrackOption

if TYPE_CHECKING:
    from searchae.launch import FleetRequest, Launcher
    from searchae.retrain import RetrainPlan

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
        help="Most epochs; it ends earlier once it no longer improves. search: as in the search.",
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
    hosts: HostsOption = "",
    tunnel: TunnelOption = False,
    install: InstallOption = False,
    skip_unfit: SkipUnfitOption = False,
    factory: FactoryOption = "",
    notify: NotifyOption = None,
    track: TrackOption = "",
    as_json: JsonOption = False,
) -> None:
    """Train the best trial anew and measure it on the test split.

    Unless options say otherwise: up to 100 epochs (the study's, if more), ended after 10 without
    improvement; one seed; the study's images.

    The result is a bundle: a folder with the weights, the metrics and pictures. The weights
    kept are those after the best validation epoch of the first seed, which is the study's own.
    Trainings are trials of the study NAME.trainings: workers share them, and what was trained
    is kept. Run the same command again after an interruption: it continues from the last epoch.
    With more --seeds only the new ones are trained.
    """
    with importing():
        from searchae.launch import (
            FleetRequest,
            configure_malloc,
        )

        configure_malloc()
        quiet_optuna()
        from searchae.cli.console import print_note
        from searchae.retrain import plan_retraining
        from searchae.study import allow_net
        from searchae.training import pick_device

    url = storage_url(storage)
    stored = open_study(url, study)
    allow_net(factory, stored)
    chosen = chosen_launcher(
        launcher,
        artifacts=artifacts,
        label=study,
        ray_address=ray_address,
        slurm=slurm,
        hosts=hosts,
        tunnel=tunnel,
        install=install,
        skip_unfit=skip_unfit,
        storage=url,
        data_dir=data_dir,
        workers_per_gpu=workers_per_device,
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
    workers = workers or plan.seeds_at_once
    request = FleetRequest(
        storage=url,
        workers=workers,
        workers_per_device=workers_per_device,
        threads=plan.threads,
        device=device,
        data_dir=data_dir,
        artifacts=artifacts,
    )
    for note in plan.notes(hint_at_winner=trial == "best", workers=workers):
        print_note(note)
    _train(plan, out, request, chosen, take_urls(notify), track, as_json=as_json)


def _train(
    plan: RetrainPlan,
    out: Path,
    request: FleetRequest,
    launcher: Launcher,
    urls: Sequence[str],
    track: str,
    *,
    as_json: bool,
) -> None:
    from searchae.cli.console_bundle import EpochLines, print_trained
    from searchae.retrain import train_bundle
    from searchae.tuning import make_tracker, notifying, track_bundle

    tracker = make_tracker(track) if track else None
    with (
        EpochLines(plan.params.train.epochs) as lines,
        notifying(urls, "train", plan.study, lines) as watcher,
    ):
        metrics = train_bundle(
            plan, out=out, request=request, launcher=launcher, watcher=watcher, stop=polled_stop()
        )
        track_bundle(tracker, plan.stored, metrics, watcher.note)
    print_result(lambda: metrics, lambda: print_trained(metrics), as_json=as_json)
