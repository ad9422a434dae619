"""A bundle for other tools: ``torch.export`` and ONNX, checked against the original."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from searchae.bundle.model import Bundle
from searchae.errors import BundleError, SearchaeError
from searchae.files import atomic_file

Part = Literal["autoencoder", "encoder", "decoder"]
PARTS: tuple[Part, ...] = ("autoencoder", "encoder", "decoder")
TOLERANCE = 1e-5
"""Largest difference to the original in any output, on the [0, 1] scale of images."""
BATCHES = (1, 2, 7)
"""Sizes of the batches that an export is checked with."""


class Whole(nn.Module):
    """Images (N, C, H, W) in [0, 1] to latents (N, latent_size) and reconstructions in [0, 1]."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        # Plain strides, whatever was fastest in training: the layout is the other tool's to choose.
        model = copy.deepcopy(bundle.model)
        self.model = model.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs."""
        latents = self.model.encode(images)
        return latents, self.model.decode(latents)


class Encoder(Whole):
    """Images (N, C, H, W) in [0, 1] to latents (N, latent_size)."""

    def forward(self, images: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        """The latents."""
        return (self.model.encode(images),)


class Decoder(Whole):
    """Latents (N, latent_size) to images (N, C, H, W) in [0, 1]."""

    def forward(self, latents: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        """The images."""
        return (self.model.decode(latents),)


_MODULES: dict[Part, type[Whole]] = {"autoencoder": Whole, "encoder": Encoder, "decoder": Decoder}
_OUTPUTS: dict[Part, list[str]] = {
    "autoencoder": ["latents", "reconstruction"],
    "encoder": ["latents"],
    "decoder": ["images"],
}


def export_bundle(bundle: Bundle, out: Path, *, part: Part = "autoencoder") -> dict[str, Any]:
    """Writes a bundle's net in another form, once it has been seen to give the same.

    The batch size is free. A ``.pt2`` is read with ``torch.export.load(FILE).module()``.

    Args:
        bundle: On the CPU.
        out: ``FILE.pt2`` or ``FILE.onnx``.
        part: What to export.

    Returns:
        ``out``, ``format``, ``part``, ``inputs``, ``outputs``, ``bytes``, ``max_difference``.

    Raises:
        BundleError: Another ending, or a package that ONNX needs is not installed.
        SearchaeError: The export differs from the original; nothing was written.
    """
    writers: dict[str, Callable[[nn.Module, Path, Part, Tensor], Callable[[Tensor], Any]]] = {
        ".pt2": _torch_export,
        ".onnx": _onnx,
    }
    if out.suffix not in writers:
        raise BundleError(f"{out}: name a file that ends in .pt2 or .onnx")
    if out.suffix == ".onnx":
        _require_onnx()
    module = _MODULES[part](bundle).eval()
    shape = (bundle.latent_size,) if part == "decoder" else bundle.image_shape
    draws = torch.Generator().manual_seed(0)
    examples = [torch.rand(n, *shape, generator=draws) for n in BATCHES]
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f"model{out.suffix}"
        run = writers[out.suffix](module, draft, part, examples[1])
        difference = max(_difference(module, run, example) for example in examples)
        if not difference <= TOLERANCE:
            raise SearchaeError(
                f"{out}: the export differs from the original by {difference:.2g}, more than "
                f"{TOLERANCE:g}; nothing was written"
            )
        content = draft.read_bytes()
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as file:
        file.write(content)
    return {
        "out": str(out),
        "format": out.suffix[1:],
        "part": part,
        "inputs": {_input(part): ["N", *shape]},
        "outputs": _OUTPUTS[part],
        "bytes": len(content),
        "max_difference": difference,
    }


def _torch_export(
    module: nn.Module, draft: Path, part: Part, example: Tensor
) -> Callable[[Tensor], Any]:
    dynamic = {_input(part): {0: torch.export.Dim("batch", min=1)}}
    program = torch.export.export(module, (example,), dynamic_shapes=dynamic, strict=True)
    torch.export.save(program, draft)
    loaded: Callable[[Tensor], Any] = torch.export.load(draft).module()
    return loaded


def _onnx(module: nn.Module, draft: Path, part: Part, example: Tensor) -> Callable[[Tensor], Any]:
    import onnxruntime

    torch.onnx.export(
        module,
        (example,),
        draft,
        dynamo=True,
        dynamic_shapes={_input(part): {0: torch.export.Dim("batch", min=1)}},
        input_names=[_input(part)],
        output_names=_OUTPUTS[part],
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(draft), providers=["CPUExecutionProvider"])

    def run(given: Tensor) -> list[Tensor]:
        outputs = session.run(None, {_input(part): given.numpy()})
        return [torch.from_numpy(o) for o in outputs]

    return run


def _difference(module: nn.Module, run: Callable[[Tensor], Any], example: Tensor) -> float:
    with torch.inference_mode():
        expected, found = module(example), run(example)
    return max(float((e - f).abs().max()) for e, f in zip(expected, found, strict=True))


def _input(part: Part) -> str:
    return "latents" if part == "decoder" else "images"


def _require_onnx() -> None:
    from importlib.util import find_spec

    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if find_spec(n) is None]
    if missing:
        raise BundleError(
            f"ONNX needs {', '.join(missing)}: pip install 'searchae[onnx]', or export to a .pt2"
        )
