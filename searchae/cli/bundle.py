"""The commands of a winner: train, evaluate, encode, decode, reconstruct, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae import malloc
from searchae.cli.options import (
    DEFAULT_STORAGE,
    DataDirOption,
    DeviceOption,
    JsonOption,
    RecordedPrecisionOption,
    StorageOption,
    StudyNameOption,
    examples,
    importing,
    open_study,
    quiet_optuna,
    show,
)
from searchae.errors import UserError, nearest
from searchae.formatting import format_count

if TYPE_CHECKING:
    from searchae.bundle import Bundle

app = typer.Typer()

BundleArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle: train's --out.")]
InputArgument = Annotated[
    Path, typer.Argument(metavar="IN", help="An .npz, or a folder of PNG and JPEG files.")
]
OutputArgument = Annotated[
    str,
    typer.Option(
        help="The array of an .npz to take.", show_default="images, or the only one of x_*"
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        envvar="SEARCHAE_THREADS",
        help="CPU threads.",
        show_default="as many as it was trained with",
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
    out: Annotated[Path, typer.Option(metavar="DIR", help="The bundle's folder.")],
    trial: Annotated[str, typer.Option(metavar="best|winner|N", help="Which trial.")] = "best",
    epochs: Annotated[
        str,
        typer.Option(
            metavar="E|search",
            help="At most so many, until the curve stabilises; or exactly as in the search.",
            show_default="100, or the study's if more",
        ),
    ] = "",
    patience: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Stop after so many epochs without a better PSNR; 0 for never.",
            show_default="the study's, else 10",
        ),
    ] = None,
    train_images: Annotated[
        str,
        typer.Option(
            metavar="N|all",
            help="Train on so many images, those held out for validation included; after a search "
            "on a part of them.",
            show_default="the study's",
        ),
    ] = "",
    validation: Annotated[
        float | None,
        typer.Option(help="Share of them that is held out.", show_default="the study's"),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings, each with the next seed, on the same splits.")
    ] = 1,
    storage: StorageOption = DEFAULT_STORAGE,
    data_dir: DataDirOption = Path("data"),
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="SEARCHAE_THREADS",
            help="CPU threads; results are the search's to the bit with as many as it had.",
            show_default="as many as the trial had",
        ),
    ] = None,
    precision: RecordedPrecisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrain the best trial, measure it on the test split, and keep it as a bundle.

    The weights kept are those after the best validation epoch of the first seed, which is the
    study's own. The test split is read once, at the end. Run the same command again after an
    interruption: it goes on from the last epoch.
    """
    malloc.configure_malloc()
    with importing():
        quiet_optuna()
        from searchae.cli import console, console_bundle
        from searchae.retrain import plan_retraining, train_bundle
        from searchae.study import WINNER

    stored = open_study(storage, study)
    plan = plan_retraining(
        stored,
        trial=trial,
        epochs=epochs,
        patience=patience,
        train_images=train_images,
        validation=validation,
        seeds=seeds,
        device=_device(device),
        threads=threads,
        precision=precision,
    )
    at_most = plan.params.train.epochs
    console.print_note(
        f"trial {plan.trial.number}: at most {at_most} epochs, {len(plan.seeds)} "
        f"seed{'s' if len(plan.seeds) > 1 else ''}, on {plan.device} with "
        f"{format_count(plan.threads, 'thread')}"
    )
    better = stored.study.user_attrs.get(WINNER, {}).get("number", plan.trial.number)
    if trial == "best" and better != plan.trial.number:
        console.print_note(f"over seeds trial {better} was better: --trial winner takes that one")
    with console_bundle.EpochLines(at_most) as follow:
        metrics = train_bundle(
            plan, out=out, data_dir=data_dir, on_epoch=follow.epoch, note=console.print_note
        )
    show(as_json, lambda: metrics, lambda: console_bundle.print_trained(metrics))


@app.command(epilog=examples("searchae evaluate best", "searchae evaluate best --split validation"))
def evaluate(
    folder: BundleArgument,
    split: Annotated[str, typer.Option(metavar="test|validation", help="Which images.")] = "test",
    data_dir: DataDirOption = Path("data"),
    device: Annotated[
        str,
        typer.Option(
            envvar="SEARCHAE_DEVICE", help="auto, cpu, cuda or cuda:N.", show_default="as trained"
        ),
    ] = "",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle on the images that it was made with: metrics.json's figures again."""
    with importing():
        from searchae.bundle import EVALUATION_SPLITS, evaluate_bundle
        from searchae.cli import console, console_bundle

    if split not in EVALUATION_SPLITS:
        raise UserError(f"--split {split}: {nearest(split, EVALUATION_SPLITS)}")
    found = evaluate_bundle(
        folder,
        split=split,
        data_dir=data_dir,
        device=_device(device) if device else None,
        threads=threads,
        progress=console.print_note,
    )
    show(as_json, lambda: found, lambda: console_bundle.print_figures(found))


@app.command(
    epilog=examples("searchae encode best photos/ codes.npz", "searchae encode best x.npz z.npz")
)
def encode(
    folder: BundleArgument,
    given: InputArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An .npz: latents (N, size).")],
    array: OutputArgument = "",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn images into latents."""
    import numpy as np

    with importing():
        from searchae.bundle import (
            check_output_path,
            open_images,
            write_npz,
        )
        from searchae.cli import console_bundle

    check_output_path(out, npz_only=True)
    bundle = _load(folder, device)
    source = open_images(given, bundle.config, array=array)
    latents = np.concatenate([bundle.encode(part) for part in source.batches])
    names = {"files": np.array(source.names)} if source.names else {}
    write_npz(out, latents=latents, **names)
    document = _used(bundle, out, images=source.count)
    show(as_json, lambda: document, lambda: console_bundle.print_used(document))


@app.command(
    epilog=examples("searchae decode best codes.npz back/", "searchae decode best z.npz y.npz")
)
def decode(
    folder: BundleArgument,
    given: Annotated[Path, typer.Argument(metavar="IN", help="An .npz with latents.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="An .npz: images (N, H, W, C); or a new folder.")
    ],
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn latents into images: uint8, in an .npz or as PNG files."""
    with importing():
        from searchae.bundle import (
            as_uint8,
            check_output_path,
            read_latents,
            write_images,
        )
        from searchae.cli import console_bundle
        from searchae.training import EVALUATION_BATCH

    check_output_path(out)
    bundle = _load(folder, device)
    latents, names = read_latents(given)
    bundle.check_latents(latents, where=str(given))
    starts = range(0, len(latents), EVALUATION_BATCH)
    decoded = (as_uint8(bundle.decode(latents[i : i + EVALUATION_BATCH])) for i in starts)
    write_images(out, decoded, names)
    document = _used(bundle, out, images=len(latents))
    show(as_json, lambda: document, lambda: console_bundle.print_used(document))


@app.command(epilog=examples("searchae reconstruct best photos/ photos-after/"))
def reconstruct(
    folder: BundleArgument,
    given: InputArgument,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="An .npz: images (N, H, W, C); or a new folder.")
    ],
    array: OutputArgument = "",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn images into latents and back, and say what it cost in PSNR."""
    from collections.abc import Iterator

    import numpy as np

    with importing():
        from searchae.bundle import (
            ImageArray,
            as_uint8,
            check_output_path,
            image_psnrs_db,
            open_images,
            write_images,
        )
        from searchae.cli import console_bundle

    check_output_path(out)
    bundle = _load(folder, device)
    source = open_images(given, bundle.config, array=array)
    psnrs_db: list[Any] = []

    def parts() -> Iterator[ImageArray]:
        for part in source.batches:
            back = bundle.reconstruct(part)
            psnrs_db.append(image_psnrs_db(back, part))
            yield as_uint8(back)

    write_images(out, parts(), source.names)
    document = _used(bundle, out, images=source.count)
    document["psnr_db"] = float(np.concatenate(psnrs_db).mean(dtype=np.float64))
    show(as_json, lambda: document, lambda: console_bundle.print_used(document))


@app.command(
    epilog=examples(
        "searchae export best best.pt2", "searchae export best encoder.onnx --part encoder"
    )
)
def export(
    folder: BundleArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="FILE.pt2 or FILE.onnx.")],
    part: Annotated[
        str, typer.Option(metavar="autoencoder|encoder|decoder", help="What of the net.")
    ] = "autoencoder",
    as_json: JsonOption = False,
) -> None:
    """Export a bundle's net with torch.export or to ONNX, checked against the original.

    ONNX needs the packages of searchae's extra: pip install 'searchae[onnx]'.
    """
    with importing():
        from searchae.bundle import EXPORT_PARTS
        from searchae.bundle import export_bundle as use_case
        from searchae.cli import console_bundle

    if part not in EXPORT_PARTS:
        raise UserError(f"--part {part}: {nearest(part, EXPORT_PARTS)}")
    document = use_case(_load(folder, "cpu"), out, part=part)
    show(
        as_json,
        lambda: document,
        lambda: console_bundle.print_export(document),
    )


def _load(folder: Path, device: str) -> Bundle:
    from searchae.bundle import load_bundle

    return load_bundle(folder, device=_device(device))


def _device(name: str) -> Any:
    from searchae.training import pick_device

    return pick_device(name)


def _used(bundle: Bundle, out: Path, *, images: int) -> dict[str, Any]:
    from searchae.bundle import compression_ratios

    return {
        "out": str(out),
        "images": images,
        "image_shape": list(bundle.image_shape),
        "latent_size": bundle.latent_size,
        "latents": [images, bundle.latent_size],
        "compression": compression_ratios(bundle),
    }
