"""``searchae evaluate``, ``encode``, ``decode``, ``reconstruct``, ``sample``, ``export``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchae.cli.lazy_imports import importing
from searchae.cli.options import DataDirOption, DeviceOption, JsonOption, examples, threads_option
from searchae.cli.own_net import FactoryOption
from searchae.cli.results import print_result
from searchae.config import allow_factory, find_factory
from searchae.errors import UserError, nearest

if TYPE_CHECKING:
    from searchae.bundle import Bundle

app = typer.Typer()

BundleArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle: train's --out.")]
ImagesArgument = Annotated[
    Path, typer.Argument(metavar="IN", help="An .npz, or a folder of images.")
]
LatentsArgument = Annotated[Path, typer.Argument(metavar="IN", help="An .npz with latents.")]
LatentsOutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="An .npz: latents (N, size).")
]
ImagesOutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="An .npz: images (N, H, W, C); or a new folder.")
]
CountArgument = Annotated[
    int, typer.Argument(metavar="N", min=1, max=1_000_000, help="How many images.")
]
SampleSeedOption = Annotated[
    int, typer.Option(metavar="N", min=0, help="Which images; the same number draws the same.")
]
ExportArgument = Annotated[Path, typer.Argument(metavar="OUT", help="FILE.pt2 or FILE.onnx.")]
ArrayOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The array of an .npz to take.",
        show_default="images, or the only one of x_*",
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]
SplitOption = Annotated[str, typer.Option(metavar="test|validation", help="Which images.")]
TrainedDeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        envvar="SEARCHAE_DEVICE",
        help="auto, cpu, cuda or cuda:N.",
        show_default="as trained",
    ),
]
ThreadsOption = Annotated[
    int | None, threads_option("CPU threads.", show_default="as many as it was trained with")
]
PartOption = Annotated[
    str, typer.Option(metavar="autoencoder|encoder|decoder", help="The part of the net to export.")
]


@app.command(epilog=examples("searchae evaluate best", "searchae evaluate best --split validation"))
def evaluate(
    folder: BundleArgument,
    split: SplitOption = "test",
    data_dir: DataDirOption = Path("data"),
    device: TrainedDeviceOption = "",
    threads: ThreadsOption = None,
    factory: FactoryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle again on the images it was made with."""
    with importing():
        from searchae.bundle import EVALUATION_SPLITS, evaluate_bundle
        from searchae.cli import console, console_bundle

    if split not in EVALUATION_SPLITS:
        raise UserError(f"--split {split}: {nearest(split, EVALUATION_SPLITS)}")
    if factory:
        allow_factory(find_factory(factory))
    figures = evaluate_bundle(
        folder,
        split=split,
        data_dir=data_dir,
        device=_device(device) if device else None,
        threads=threads,
        progress=console.print_note,
    )
    print_result(lambda: figures, lambda: console_bundle.print_figures(figures), as_json=as_json)


@app.command(
    epilog=examples("searchae encode best photos/ codes.npz", "searchae encode best x.npz z.npz")
)
def encode(
    folder: BundleArgument,
    given: ImagesArgument,
    out: LatentsOutArgument,
    array: ArrayOption = "",
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    factory: FactoryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Turn images into latents."""
    import numpy as np

    with importing():
        from searchae.bundle import check_output_path, open_images, write_npz
        from searchae.cli import console, console_bundle

    check_output_path(out, given=given, npz_only=True, overwrite=overwrite)
    bundle = _load(folder, device, factory)
    source = open_images(given, bundle.config, array=array, progress=console.print_note)
    latents = np.concatenate([bundle.encode(part) for part in source.batches])
    names = {"files": np.array(source.names)} if source.names else {}
    write_npz(out, latents=latents, **names)
    document = _use_document(bundle, out, images=source.count)
    print_result(lambda: document, lambda: console_bundle.print_used(document), as_json=as_json)


@app.command(
    epilog=examples("searchae decode best codes.npz back/", "searchae decode best z.npz y.npz")
)
def decode(
    folder: BundleArgument,
    given: LatentsArgument,
    out: ImagesOutArgument,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    factory: FactoryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Turn latents into images: in an .npz or as PNG files."""
    with importing():
        from searchae.bundle import check_output_path, read_latents, write_images
        from searchae.cli import console_bundle

    check_output_path(out, given=given, overwrite=overwrite)
    bundle = _load(folder, device, factory)
    latents, names = read_latents(given)
    bundle.check_latents(latents, where=str(given))
    _note_levels(bundle, out)
    write_images(out, _decoded(bundle, latents), names)
    document = _use_document(bundle, out, images=len(latents))
    print_result(lambda: document, lambda: console_bundle.print_used(document), as_json=as_json)


@app.command(epilog=examples("searchae reconstruct best photos/ photos-after/"))
def reconstruct(
    folder: BundleArgument,
    given: ImagesArgument,
    out: ImagesOutArgument,
    array: ArrayOption = "",
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    factory: FactoryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Turn images into latents and back, and measure the PSNR."""
    import numpy as np

    with importing():
        from searchae.bundle import (
            ImageArray,
            as_levels,
            check_output_path,
            image_psnrs_db,
            open_images,
            write_images,
        )
        from searchae.cli import console, console_bundle

    check_output_path(out, given=given, overwrite=overwrite)
    bundle = _load(folder, device, factory)
    source = open_images(given, bundle.config, array=array, progress=console.print_note)
    psnrs_db: list[Any] = []

    def reconstructions() -> Iterator[ImageArray]:
        for part in source.batches:
            back = bundle.reconstruct(part)
            psnrs_db.append(image_psnrs_db(back, part))
            yield as_levels(back, bundle.config)

    _note_levels(bundle, out)
    write_images(out, reconstructions(), source.names)
    document = _use_document(bundle, out, images=source.count)
    document["psnr_db"] = float(np.concatenate(psnrs_db).mean(dtype=np.float64))
    print_result(lambda: document, lambda: console_bundle.print_used(document), as_json=as_json)


@app.command(
    epilog=examples("searchae sample best 64 new/", "searchae sample best 1000 new.npz --seed 7")
)
def sample(
    folder: BundleArgument,
    count: CountArgument,
    out: ImagesOutArgument,
    seed: SampleSeedOption = 0,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    factory: FactoryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Draw new images with a variational net.

    Latents are drawn from a standard normal distribution, and decoded.
    """
    with importing():
        from searchae.bundle import check_output_path, write_images
        from searchae.cli import console_bundle

    check_output_path(out, given=folder, overwrite=overwrite)
    bundle = _load(folder, device, factory)
    latents = bundle.random_latents(count, seed=seed)
    _note_levels(bundle, out)
    write_images(out, _decoded(bundle, latents), ())
    document = _use_document(bundle, out, images=count)
    print_result(lambda: document, lambda: console_bundle.print_used(document), as_json=as_json)


@app.command(
    epilog=examples(
        "searchae export best best.pt2", "searchae export best encoder.onnx --part encoder"
    )
)
def export(
    folder: BundleArgument,
    out: ExportArgument,
    part: PartOption = "autoencoder",
    overwrite: OverwriteOption = False,
    factory: FactoryOption = "",
    as_json: JsonOption = False,
) -> None:
    """Export a bundle's net with torch.export or to ONNX.

    The exported net is checked against the original. ONNX needs the packages of searchae's extra:
    pip install '.[onnx]' in searchae's source folder.
    """
    with importing():
        from searchae.bundle import EXPORT_PARTS, check_not_there, export_bundle
        from searchae.cli import console_bundle

    if part not in EXPORT_PARTS:
        raise UserError(f"--part {part}: {nearest(part, EXPORT_PARTS)}")
    check_not_there(out, overwrite=overwrite)
    document = export_bundle(_load(folder, "cpu", factory), out, part=part)
    print_result(lambda: document, lambda: console_bundle.print_export(document), as_json=as_json)


def _load(folder: Path, device: str, factory: str) -> Bundle:
    from searchae.bundle import load_bundle

    if factory:
        allow_factory(find_factory(factory))
    return load_bundle(folder, device=_device(device))


def _decoded(bundle: Bundle, latents: Any) -> Iterator[Any]:
    """Yields the images of latents, (B, C, H, W), batch by batch."""
    from searchae.bundle import as_levels
    from searchae.training import EVALUATION_BATCH

    for start in range(0, len(latents), EVALUATION_BATCH):
        yield as_levels(bundle.decode(latents[start : start + EVALUATION_BATCH]), bundle.config)


def _device(name: str) -> Any:
    from searchae.training import pick_device

    return pick_device(name)


def _note_levels(bundle: Bundle, out: Path) -> None:
    """Says what becomes of 16 bits in the files that are written."""
    from searchae.cli.console import print_note

    if bundle.config.data.value_bits == 8:
        return
    if out.suffix != ".npz" and bundle.config.image_shape[0] > 1:
        print_note(f"{out}: PNG files keep 16 bits in grey only, these have 8; an .npz keeps 16")
    else:
        print_note(f"{out}: values of 16 bits, white is 65535")


def _use_document(bundle: Bundle, out: Path, *, images: int) -> dict[str, Any]:
    """Returns what encode, decode and reconstruct print."""
    from searchae.bundle import compression_ratios

    return {
        "out": str(out),
        "images": images,
        "image_shape": list(bundle.image_shape),
        "latent_size": bundle.latent_size,
        "latents": [images, bundle.latent_size],
        "compression": compression_ratios(bundle),
    }
