"""Export of a bundle's net to ``torch.export`` and ONNX, with a check against the original."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from searchae.bundle.model import Bundle
from searchae.errors import BundleError, SearchaeError, install_text
from searchae.files import output_file

ExportPart = Literal["autoencoder", "encoder", "decoder"]
EXPORT_PARTS: tuple[ExportPart, ...] = ("autoencoder", "encoder", "decoder")
TOLERANCE = 1e-5
"""Largest accepted difference from the original in any output, on the images' [0, 1] scale."""
CHECKED_BATCH_SIZES = (1, 2, 7)
"""Batch sizes that an export is checked with."""


class _AutoencoderModule(nn.Module):
    """Images (N, C, H, W) in [0, 1] to latents (N, latent_size) and reconstructions in [0, 1]."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        # Contiguous strides: the other tool chooses its own memory layout.
        model = copy.deepcopy(bundle.model)
        self.model = model.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        latents = self.model.encode(images)
        return latents, self.model.decode(latents)


class _EncoderModule(_AutoencoderModule):
    """Images (N, C, H, W) in [0, 1] to latents (N, latent_size)."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.model.encode(images),)


class _DecoderModule(_AutoencoderModule):
    """Latents (N, latent_size) to images (N, C, H, W) in [0, 1]."""

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        return (self.model.decode(latents),)


_Runner = Callable[[Tensor], Any]
"""Runs an exported net on a batch and returns its outputs."""

_MODULES: dict[ExportPart, type[_AutoencoderModule]] = {
    "autoencoder": _AutoencoderModule,
    "encoder": _EncoderModule,
    "decoder": _DecoderModule,
}
_OUTPUTS: dict[ExportPart, list[str]] = {
    "autoencoder": ["latents", "reconstruction"],
    "encoder": ["latents"],
    "decoder": ["images"],
}


def export_bundle(bundle: Bundle, out: Path, *, part: ExportPart = "autoencoder") -> dict[str, Any]:
    """Exports a bundle's net, after a check that the export gives the same results.

    The export accepts any batch size. Load a ``.pt2`` file with
    ``torch.export.load(FILE).module()``.

    Args:
        bundle: The bundle, on the CPU.
        out: ``FILE.pt2`` or ``FILE.onnx``.
        part: The part of the net to export.

    Returns:
        ``out``, ``format``, ``part``, ``inputs`` and ``outputs`` (names, and the inputs' shape),
        ``bytes`` of the file, and ``max_difference`` from the original.

    Raises:
        BundleError: The file has another extension, a package that ONNX needs is missing, or the
            net has no such part.
        SearchaeError: The export differs from the original; nothing is written.
    """
    if out.suffix not in _WRITERS:
        raise BundleError(f"{out}: name a file that ends in .pt2 or .onnx")
    if out.suffix == ".onnx":
        _require_onnx()
    if part != "autoencoder" and not bundle.model.has_latent:
        raise BundleError("--part: the net has no latent, and so no encoder and no decoder")
    shape = (bundle.latent_size,) if part == "decoder" else bundle.image_shape
    content, difference = _export(bundle, part, shape, suffix=out.suffix)
    if not difference <= TOLERANCE:
        raise SearchaeError(
            f"{out}: the export differs from the original by {difference:.2g}, more than "
            f"{TOLERANCE:g}; nothing was written"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with output_file(out) as file:
        file.write(content)
    return {
        "out": str(out),
        "format": out.suffix[1:],
        "part": part,
        "inputs": {_input_name(part): ["N", *shape]},
        "outputs": _OUTPUTS[part],
        "bytes": len(content),
        "max_difference": difference,
    }


def _export(
    bundle: Bundle, part: ExportPart, shape: tuple[int, ...], *, suffix: str
) -> tuple[bytes, float]:
    """Returns the exported file's content, and its largest difference from the original."""
    module = _MODULES[part](bundle).eval()
    generator = torch.Generator().manual_seed(0)
    examples = [torch.rand(n, *shape, generator=generator) for n in CHECKED_BATCH_SIZES]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{suffix}"
        run = _WRITERS[suffix](module, file, part, examples[1])
        difference = max(_difference(module, run, example) for example in examples)
        return file.read_bytes(), difference


def _write_torch_export(
    module: nn.Module, file: Path, part: ExportPart, example: Tensor
) -> _Runner:
    dynamic = {_input_name(part): {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(module, (example,), dynamic_shapes=dynamic, strict=True)
    torch.export.save(program, file)
    loaded: _Runner = torch.export.load(file).module()
    return loaded


def _write_onnx(module: nn.Module, file: Path, part: ExportPart, example: Tensor) -> _Runner:
    import onnxruntime

    torch.onnx.export(
        module,
        (example,),
        file,
        dynamo=True,
        dynamic_shapes={_input_name(part): {0: torch.export.Dim("batch", min=1)}},
        input_names=[_input_name(part)],
        output_names=_OUTPUTS[part],
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(batch: Tensor) -> list[Tensor]:
        outputs = session.run(None, {_input_name(part): batch.numpy()})
        return [torch.from_numpy(o) for o in outputs]

    return run


_WRITERS: dict[str, Callable[[nn.Module, Path, ExportPart, Tensor], _Runner]] = {
    ".pt2": _write_torch_export,
    ".onnx": _write_onnx,
}


def _difference(module: nn.Module, run: _Runner, example: Tensor) -> float:
    with torch.inference_mode():
        expected, found = module(example), run(example)
    return max(float((e - f).abs().max()) for e, f in zip(expected, found, strict=True))


def _input_name(part: ExportPart) -> str:
    return "latents" if part == "decoder" else "images"


def _require_onnx() -> None:
    from importlib.util import find_spec

    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if find_spec(n) is None]
    if missing:
        raise BundleError(
            f"ONNX needs {', '.join(missing)}: {install_text('onnx')}, or export to a .pt2"
        )
