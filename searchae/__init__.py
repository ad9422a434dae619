"""searchae: hyperparameter search for image autoencoders.

The steps of a search, and the packages that do them::

    studies/svhn.toml -> spec (config) -> checks (tuning) -> workers (launch)
      -> each worker: claim a trial (study), sample its parameters (search),
         train and prune it (training, worker), store its result (storage)
      -> summary (study) -> report, train, compare (report, retrain, bundle, compare)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from searchae import errors
from searchae.errors import SearchaeError, UserError

if TYPE_CHECKING:
    from pathlib import Path

    from searchae.api import Search
    from searchae.bundle import Bundle
    from searchae.compare import ComparisonResult, Ranking
    from searchae.config import StudySpec
    from searchae.study import TrialRow

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "ComparisonResult",
    "Ranking",
    "Search",
    "SearchaeError",
    "StudySpec",
    "TrialRow",
    "UserError",
    "__version__",
    "errors",
    "load",
    "open",
    "tune",
]

_LATE = {
    "Bundle": "bundle",
    "ComparisonResult": "compare",
    "Ranking": "compare",
    "Search": "api",
    "StudySpec": "config",
    "TrialRow": "study",
}
"""Where the other names are: imported when they are asked for, since they load torch or Optuna."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'searchae' has no attribute {name!r}")
    with _importing():
        return getattr(import_module(f"searchae.{_LATE[name]}"), name)


@contextmanager
def _importing() -> Iterator[None]:
    """For imports: Optuna's tqdm warns in a notebook of a widget that searchae does not use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def tune(
    study: str | Path | Mapping[str, Any] | StudySpec,
    *,
    images: object = None,
    trials: int | None = None,
    max_hours: float | None = None,
    workers: int | None = None,
    storage: str | None = None,
    data_dir: str | Path | None = None,
    artifacts: str | Path | None = None,
    device: str | None = None,
    workers_per_device: int | Literal["auto"] = 1,
    threads: int | None = None,
    precision: str | None = None,
    launcher: Literal["local", "ssh", "ray", "slurm"] = "local",
    ray_address: str | None = None,
    slurm: Mapping[str, str] | None = None,
    hosts: str | Sequence[str] = (),
    tunnel: bool = False,
    install: bool = False,
    skip_unfit: bool = False,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002  # the command line's --set
    name: str = "",
    warm_start: str = "",
    track: Literal["mlflow", "wandb"] | None = None,
    quiet: bool = False,
) -> Search:
    """Runs a search, or finishes one that was interrupted, as ``searchae tune`` does.

    It returns when the search is over. Workers are processes of their own. Ctrl-C, or a notebook's
    "interrupt", keeps the running trials up to their last epoch and leaves no process; the same
    call continues them.

    Args:
        study: A study file's name or path; or what one holds, as a dict or as the ``spec`` of
            another search, which need a ``name``.
        images: Images in place of the study's ``[data]``: a numpy array or a torch tensor
            (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or float in [0, 1]; or a torch
            ``Dataset`` of such images, or of tuples that begin with one. They are written to
            ``data_dir``, named by their hash.
        trials: Trials in all, complete or pruned; the study's number if unset.
        max_hours: Stop all workers after this many hours.
        workers: Processes at once; one a GPU, else one a core up to 4, if unset.
        storage: Database URL; ``$SEARCHAE_STORAGE``, else ``sqlite:///searchae.db``, if unset.
        data_dir: Folder of the data sets; ``$SEARCHAE_DATA_DIR``, else ``data``.
        artifacts: Folder for checkpoints and logs, or a URL such as ``s3://BUCKET/PREFIX`` as a
            text; ``$SEARCHAE_ARTIFACTS``, else ``artifacts``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``$SEARCHAE_DEVICE``, else ``auto``.
        workers_per_device: Workers that share a GPU; ``auto`` measures it.
        threads: CPU threads of each worker; the cores, shared out among the workers, if unset.
        precision: ``fp32``, ``bf16`` or ``auto``; ``$SEARCHAE_PRECISION``, else ``auto``.
        launcher: Where workers run.
        ray_address: For Ray: ``HOST:PORT``, ``auto`` or ``local``.
        slurm: For Slurm: sbatch options, such as ``{"partition": "gpu"}``.
        hosts: For ssh: such as ``["gpu1", "gpu2:2"]``, or the path of a file with one a line.
        tunnel: For ssh: hosts that cannot reach the database get there through this machine.
        install: For ssh: install this searchae on hosts that have another one, or none.
        skip_unfit: For ssh: go on without hosts that fail their check.
        seed: Seed of everything random; the study's if unset.
        set: Overrides of the study, such as ``{"train.epochs": 5}``.
        name: The study's name in the storage; the study file's if empty.
        warm_start: A study whose trials a new study starts from.
        track: Show the trials in MLflow or W&B too; the address and the login come from their own
            environment variables.
        quiet: Show no progress.

    Returns:
        The search.

    Raises:
        UserError: Something that was asked for is wrong; the message says what to do.
        SearchaeError: The search failed.
        KeyboardInterrupt: It was interrupted; every running trial is kept, to be continued.

    Examples:
        >>> search = searchae.tune("quickstart", trials=4, quiet=True)
        >>> search.best.psnr_db > 10
        True
    """
    with _importing():
        from searchae.launch import (
            GivenPlace,
            GivenStudy,
            HostState,
            Request,
            SshOptions,
            check_counts,
            choose_launcher,
            host_text,
            override_texts,
            prestarted_workers,
            setting,
        )

    place = GivenPlace.of(storage, data_dir, artifacts, device, quiet=quiet, create=True)
    overrides = dict(set or {})
    given = GivenStudy.of(study, name)
    if images is not None:
        given = given.with_images(images, overrides, place.data_dir)
    check_counts(trials=trials)
    request = Request(
        study=given.study,
        tables=given.tables,
        folder=given.folder,
        name=given.name,
        trials=trials,
        seed=seed,
        overrides=override_texts(overrides),
        warm_start=warm_start,
        **place.fleet(
            max_hours=max_hours,
            workers=workers,
            workers_per_device=workers_per_device,
            threads=threads,
            precision=precision,
        ),
    )

    def note(text: str) -> None:
        watcher.note(text)  # hosts are checked once there is one

    def report(states: Sequence[HostState]) -> None:
        for state in states:
            note(host_text(state))

    named = hosts if isinstance(hosts, str) else ",".join(hosts)
    options = SshOptions(named, tunnel=tunnel, install=install, skip_unfit=skip_unfit)
    chosen = choose_launcher(
        launcher,
        artifacts=place.artifacts,
        label=request.resolved[0],
        ray_address=setting(ray_address, "RAY_ADDRESS", "auto"),
        slurm=[f"{key}={value}" for key, value in (slurm or {}).items()],
        ssh=options.settings(
            launcher,
            storage=request.storage,
            data_dir=place.data_dir,
            artifacts=place.artifacts,
            workers_per_gpu=1 if workers_per_device == "auto" else workers_per_device,
            report=report,
            note=note,
        ),
    )
    with prestarted_workers(request, chosen) as imports_done:
        with _importing():
            from searchae import tuning

        imports_done()
        tracker = tuning.make_tracker(track) if track else None
        tracked = request.storage, request.resolved[0], place.artifacts
        with (
            tuning.session(chosen, quiet=quiet) as (shown, stop),
            tuning.tracking(tracker, *tracked, shown) as watcher,
        ):
            tuning.tune(request, watcher, chosen, stop)
    factory = request.factory.text if request.factory else ""
    from searchae.api import Search

    return Search(request.resolved[0], replace(place, factory=factory))


def open(  # noqa: A001  # of a study, as one says it
    study: str,
    *,
    storage: str | None = None,
    data_dir: str | Path | None = None,
    artifacts: str | Path | None = None,
    device: str | None = None,
    factory: str = "",
    quiet: bool = False,
) -> Search:
    """Opens a search that exists, running or finished.

    Args:
        study: The study's name.
        storage: See ``tune``.
        data_dir: See ``tune``.
        artifacts: See ``tune``.
        device: See ``tune``; for ``train`` and ``compare``.
        factory: For a net of one's own, the function that builds it, as ``FILE.py:FUNCTION``.
        quiet: Show no progress of ``train`` and ``compare``.

    Raises:
        NoStudyError: There is no such study, or no such database.
        UserError: It is no search, but a list of trainings.

    Examples:
        >>> search = searchae.open("quickstart")
        >>> search
        <search 'quickstart': 4 of 4 trials, best ... dB (trial ...), in sqlite:///searchae.db>
    """
    with _importing():
        from searchae.api import Search
        from searchae.launch import GivenPlace

    place = GivenPlace.of(storage, data_dir, artifacts, device, factory=factory, quiet=quiet)
    search = Search(study, place)
    search.spec  # noqa: B018  # raises where there is none
    return search


def load(folder: str | Path, *, device: str = "cpu", factory: str = "") -> Bundle:
    """Loads a bundle that ``searchae train --out DIR`` wrote.

    Args:
        folder: The bundle's folder.
        device: Where the model runs, such as ``cpu`` or ``cuda``.
        factory: For a net of one's own, the function that builds it, as ``FILE.py:FUNCTION`` or
            ``PACKAGE.MODULE:FUNCTION``. Code is never taken from a bundle.

    Returns:
        A bundle with ``encode(images) -> (N, latent_size)``, ``decode(latents)`` and
        ``reconstruct(images)``. Images are (N, C, H, W), uint8 or float in [0, 1], as numpy arrays
        or torch tensors.

    Raises:
        errors.BundleError: The folder is not a bundle, the bundle is damaged or was altered, or
            its net is built by another function.
        errors.SpecError: There is no such ``factory``.

    Examples:
        >>> model = searchae.load("best")
        >>> model.latent_size
        8
    """
    with _importing():
        from searchae.bundle import load_bundle
        from searchae.config import allow_factory, find_factory

    if factory:
        allow_factory(find_factory(factory))

    return load_bundle(folder, device=device)
