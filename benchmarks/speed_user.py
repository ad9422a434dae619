"""The training loop that a user writes, which ``benchmarks.speed`` measures searchae against.

It is that of a notebook: images as PIL has them, ``ToTensor``, a ``DataLoader`` without workers,
float32, a net written down layer by layer, a loop over the parameters that clamps them,
``loss.item()`` in each step. Nothing of searchae is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

Pixels = npt.NDArray[np.uint8]
"""Images, uint8 (N, H, W, C)."""
BATCH = 128

Activation = Callable[[], nn.Module]
ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}
OPTIMIZERS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}


class Net(nn.Module):
    """An autoencoder.

    Args:
        encoder: Images in [0, 1] to latents.
        decoder: Latents to images in [0, 1].
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructs float images (N, C, H, W)."""
        reconstructions: Tensor = self.decoder(self.encoder(images))
        return reconstructions


def pool_conv(act: Activation) -> Net:
    """``studies/pool-conv.toml`` with a latent of 64, for images of 3x32x32."""
    return Net(
        nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), act(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), act(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 128, 3, padding=1), act(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(128 * 4 * 4, 64), act()),
        ),
        nn.Sequential(
            *(nn.Linear(64, 128 * 4 * 4), act(), nn.Unflatten(1, (128, 4, 4))),
            *(nn.ConvTranspose2d(128, 128, 3, padding=1), act(), nn.Upsample(scale_factor=2)),
            *(nn.ConvTranspose2d(128, 64, 3, padding=1), act(), nn.Upsample(scale_factor=2)),
            *(nn.ConvTranspose2d(64, 32, 3, padding=1), act(), nn.Upsample(scale_factor=2)),
            *(nn.Conv2d(32, 3, 3, padding=1), nn.Sigmoid()),
        ),
    )


def conv(act: Activation) -> Net:
    """``studies/mnist.toml``, strided, for images of 1x28x28."""
    return Net(
        nn.Sequential(
            *(nn.Conv2d(1, 16, 3, stride=2, padding=1), act()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), act()),
            *(nn.Conv2d(32, 64, 3, stride=2, padding=1), act()),
            *(nn.Flatten(), nn.Linear(64 * 4 * 4, 16)),
        ),
        nn.Sequential(
            *(nn.Linear(16, 64 * 4 * 4), act(), nn.Unflatten(1, (64, 4, 4))),
            *(nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1), act()),
            *(nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), act()),
            *(nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1), nn.Sigmoid()),
        ),
    )


def dense(act: Activation) -> Net:
    """Widths of 128 and 64 and a latent of 32, for images of 1x28x28."""
    return Net(
        nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, 128), act(), nn.Linear(128, 64), act()),
            nn.Linear(64, 32),
        ),
        nn.Sequential(
            *(nn.Linear(32, 64), act(), nn.Linear(64, 128), act()),
            *(nn.Linear(128, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))),
        ),
    )


NETS = {"pool-conv": pool_conv, "conv": conv, "dense": dense}


class Pictures(Dataset[Tensor]):
    """PIL images made into tensors one by one, as torchvision's data sets do it."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        picture: Tensor = self.transform(Image.fromarray(self.pixels[index]))
        return picture


class Resident:
    """All images as one uint8 tensor on the device; batches in a new order each time."""

    def __init__(self, pixels: Pixels, device: str) -> None:
        self.images = channels_first(pixels).to(device)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.images)).to(self.images.device)
        for indices in order.split(BATCH):  # type: ignore[no-untyped-call]
            yield self.images[indices].float().div(255)


def channels_first(pixels: Pixels) -> Tensor:
    """uint8 (N, H, W, C) as a tensor (N, C, H, W), contiguous."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def user_epochs(
    net: str,
    pixels: Pixels,
    *,
    seed: int,
    device: str,
    activation: str = "relu",
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
    clip: float | None = 0.5,
    l1_weight: float = 0.0,
    resident: bool = False,
) -> Iterator[Net]:
    """Trains without end; yields the net after each epoch."""
    torch.manual_seed(seed)
    model = NETS[net](ACTIVATIONS[activation]).to(device)
    updates = OPTIMIZERS[optimizer](model.parameters(), lr=learning_rate)
    batches: Any = DataLoader(Pictures(pixels), batch_size=BATCH, shuffle=True)
    if resident:
        batches = Resident(pixels, device)
    while True:
        model.train()
        total = 0.0
        for batch in batches:
            images = batch.to(device)
            latents = model.encoder(images)
            loss = F.mse_loss(model.decoder(latents), images)
            if l1_weight:
                loss = loss + l1_weight * latents.abs().mean()
            updates.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            updates.step()
            if clip is not None:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.clamp_(-clip, clip)
            total += loss.item()
        yield model


@torch.no_grad()
def user_psnr_db(model: Net, pixels: Pixels, *, device: str) -> float:
    """The PSNR of each image, in dB, averaged: what searchae reports."""
    model.eval()
    found = []
    for batch in DataLoader(Pictures(pixels), batch_size=250):
        images = batch.to(device)
        mse = (model(images) - images).square().flatten(1).mean(1)
        found.append(-10 * mse.log10())
    return float(torch.cat(found).mean())
