"""Pictures of a bundle: reconstructions as PNG; curves and latent space as an HTML page.

The page needs no network. Its figures share no code with ``report``: the two packages are
independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from searchae.bundle.evaluation import latent_batches
from searchae.bundle.model import Bundle
from searchae.files import output_file
from searchae.formatting import html_text
from searchae.training import (
    EVALUATION_BATCH,
    EpochResult,
    draw_reconstructions,
    psnr_per_image,
    to_unit_float,
)

SHOWN_IMAGES = 16
MAX_LATENT_IMAGES = 2000
_GREY, _GRID = "#7b8189", "rgba(128,128,128,0.3)"
"""Legible on white and on black."""


def write_reconstructions_picture(
    path: Path, bundle: Bundle, images: Tensor, *, title: str
) -> None:
    """Draws images above their reconstructions, each with its PSNR, and writes a PNG.

    For a net that was trained to remove noise, its noisy input is drawn between the two.

    Args:
        path: The file.
        bundle: The bundle.
        images: uint8 or uint16 (N, C, H, W), of which 16 evenly spaced ones are drawn.
        title: The line above the picture.

    Raises:
        OSError: The file cannot be written.
    """
    canvas = draw_reconstructions(
        bundle.model,
        images,
        noise_std=bundle.config.train.noise_std,
        seed=bundle.config.seed,
        title=title,
        shown=SHOWN_IMAGES,
    )
    with output_file(path) as file:
        canvas.save(file, format="PNG")


def write_curves_page(
    path: Path,
    bundle: Bundle,
    images: Tensor,
    *,
    histories: Mapping[int, Sequence[EpochResult]],
    title: str,
) -> None:
    """Draws loss and PSNR by epoch for each seed, and the latent space, and writes an HTML page.

    Args:
        path: The file.
        bundle: The bundle.
        images: uint8 or uint16 (N, C, H, W), of which the latents of at most 2000 are drawn.
        histories: The epochs' results by seed.
        title: The page's title.

    Raises:
        OSError: The file cannot be written.
    """
    chosen = images[torch.linspace(0, len(images) - 1, min(MAX_LATENT_IMAGES, len(images))).long()]
    z = torch.cat(list(latent_batches(bundle, chosen))).numpy()
    figures = {
        "Training": _training_figure(histories, kept_epoch=bundle.config.epoch),
        "Latent space": _latent_figure(z, _reconstruction_psnrs_db(bundle, chosen)),
    }
    parts = [
        f"<h2>{heading}</h2>\n"
        + figure.to_html(
            full_html=False,
            include_plotlyjs=number == 0,
            default_height="460px",
            config={"responsive": True},
        )
        for number, (heading, figure) in enumerate(figures.items())
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{html_text(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;"
        "margin:2rem auto;max-width:1100px;padding:0 1rem;color:#222;background:#fff}"
        "h1{font-size:1.4rem}h2{font-size:1.1rem}"
        "@media(prefers-color-scheme:dark){body{color:#ddd;background:#16191d}}"
        f"</style></head>\n<body><h1>{html_text(title)}</h1>\n{''.join(parts)}\n</body></html>\n"
    )
    with output_file(path) as file:
        file.write(page.encode())


def _reconstruction_psnrs_db(bundle: Bundle, images: Tensor) -> npt.NDArray[np.float32]:
    """Returns the PSNR of each image's reconstruction in dB: float32 (N,)."""
    parts = [
        psnr_per_image(bundle.reconstruct(part), to_unit_float(part))
        for part in torch.split(images, EVALUATION_BATCH)
    ]
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def _training_figure(histories: Mapping[int, Sequence[EpochResult]], *, kept_epoch: int) -> Any:
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("Loss: mean squared error", "Validation PSNR in dB")
    )
    for i, (seed, history) in enumerate(histories.items()):
        epochs = [r.epoch for r in history]
        colour = qualitative.D3[i % len(qualitative.D3)]
        lines: list[tuple[str, list[float], str, int]] = [
            ("validation", [r.val_mse for r in history], "solid", 1),
            ("training", [r.train_mse for r in history], "dot", 1),
            ("PSNR", [r.psnr_db for r in history], "solid", 2),
        ]
        for name, values, dash, column in lines:
            figure.add_scatter(
                x=epochs,
                y=values,
                mode="lines",
                line={"dash": dash, "color": colour},
                name=f"seed {seed}: {name}",
                showlegend=column == 1,
                row=1,
                col=column,
            )
    first = next(iter(histories.values()))
    figure.add_scatter(
        x=[kept_epoch],
        y=[first[kept_epoch - 1].psnr_db],
        mode="markers",
        marker={"size": 9, "color": _GREY},
        name="kept weights",
        row=1,
        col=2,
    )
    figure.update_yaxes(type="log", dtick="D2", tickformat=".2~g", row=1, col=1)
    figure.update_xaxes(title_text="epoch")
    return _on_any_background(figure)


def _latent_figure(z: npt.NDArray[np.float64], psnrs_db: npt.NDArray[np.float32]) -> Any:
    from plotly.subplots import make_subplots

    plane, explained = principal_plane(z)
    figure = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=(
            f"First two principal components ({explained:.0%} of the variance)",
            "Values of all latents",
        ),
        horizontal_spacing=0.16,
    )
    figure.add_scatter(
        x=plane[:, 0],
        y=plane[:, 1],
        mode="markers",
        marker={
            "size": 5,
            "color": psnrs_db,
            "colorscale": "Viridis",
            "colorbar": {"title": "PSNR, dB", "x": 0.42, "thickness": 12},
        },
        showlegend=False,
        row=1,
        col=1,
    )
    # Plotly's own histogram would put all values, tens of megabytes, into the page.
    counts, edges = np.histogram(z, bins=100)
    figure.add_bar(
        x=(edges[1:] + edges[:-1]) / 2,
        y=counts / z.size,
        marker={"color": "#1f77b4", "line": {"width": 0}},
        showlegend=False,
        row=1,
        col=2,
    )
    figure.update_xaxes(title_text="component 1", row=1, col=1)
    figure.update_yaxes(title_text="component 2", row=1, col=1)
    figure.update_xaxes(title_text="value", row=1, col=2)
    figure.update_yaxes(title_text="share", row=1, col=2)
    figure.update_layout(bargap=0)
    return _on_any_background(figure)


def _on_any_background(figure: Any) -> Any:
    """Makes a figure legible on a light page and on a dark one."""
    figure.update_layout(
        template="plotly_white",
        margin={"t": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY},
    )
    lines = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": _GRID}
    figure.update_xaxes(**lines)
    figure.update_yaxes(**lines)
    return figure


def principal_plane(z: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Projects points onto their first two principal components.

    Args:
        z: (N, D).

    Returns:
        Coordinates (N, 2), with zeros if there are fewer than two components; and the share of the
        variance that they explain, from 0 to 1.
    """
    centred = z - z.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(z), 2))
    coordinates = centred @ directions[:2].T
    plane[:, : coordinates.shape[1]] = coordinates
    total = float((singular**2).sum())
    return plane, float((singular[:2] ** 2).sum()) / total if total else 1.0
