"""Further nets, losses and schedules against a user's loop: the same PSNR, at no less speed?

    python -m benchmarks.further_nets --data-dir data

A variational autoencoder, a residual net, AdamW with a cosine, and a loss mixed with SSIM, each on
MNIST (3,000 images) and on SVHN's digits in grey (``svhn_gray.npz``, 1,965), 10 epochs in batches
of 64, three seeds, one thread. The user's loop is that of a notebook: the same net with torch's own
modules, PIL images, ``ToTensor``, a ``DataLoader`` without workers, the classes of ``torch.optim``
and ``torch.optim.lr_scheduler``, float32, clamping after each step all but the norms. Both sides
take turns and are measured alike: the mean PSNR of the validation images after the last epoch, and
the seconds of a training without its validation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader
from torchmetrics.functional.image import structural_similarity_index_measure

from benchmarks.speed_user import Pictures
from searchae.config import DataSpec, ModelParams, TrainParams, TrialParams
from searchae.data import Splits, load_splits
from searchae.models import Autoencoder, GaussianLatent, build_model
from searchae.training import Trainer, evaluate
from searchae.training.regularizers import penalised_weights

EPOCHS, BATCH, SEEDS = 10, 64, (0, 1, 2)
NET = {"channels": (16, 32), "latent_dim": 32, "activation": "tanh"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "variational": ({"variational": True}, {"loss": "bce", "beta": 1.0, "beta_warmup_epochs": 3}),
    "residual": ({"residual_blocks": 1, "group_norm": 4}, {}),
    "AdamW, cosine": ({}, {"optimizer": "adamw", "weight_decay": 1e-2, "schedule": "cosine"}),
    "MSE and SSIM": ({}, {"ssim_weight": 0.2}),
}
DATA = {
    "MNIST": {"name": "mnist", "train_images": 3000},
    "SVHN, grey": {"name": "npz", "path": "svhn_gray.npz"},
}


def main() -> None:
    """Trains both sides, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| net | images | searchae, dB | user's loop, dB | times as fast |")
    print("| --- | --- | --- | --- | --- |")
    for source, keys in DATA.items():
        spec = DataSpec(**keys)  # type: ignore[arg-type]
        splits = load_splits(spec, data_dir=options.data_dir, seed=0, progress=lambda _: None)
        for name, (model, train) in CASES.items():
            trial = TrialParams(
                ModelParams(**{**NET, **model}),
                TrainParams(**{"epochs": EPOCHS, "batch_size": BATCH, **train}),
            )
            sides = [(ours(trial, splits, s), theirs(trial, splits, s)) for s in SEEDS]
            here, there = (statistics.fmean(pair[i][0] for pair in sides) for i in (0, 1))
            ratios = [user[1] / own[1] for own, user in sides]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {name} | {source} | {here:.2f} | {there:.2f} | {spread} |", flush=True)


def ours(trial: TrialParams, splits: Splits, seed: int) -> tuple[float, float]:
    """Returns the PSNR in dB and the seconds of a training by searchae."""
    trainer = Trainer(
        trial,
        train=splits.train,
        validation=splits.validation[:2],  # the measurement below is not what is compared
        seed=seed,
        device=torch.device("cpu"),
    )
    started = time.perf_counter()
    list(trainer.epochs())
    seconds = time.perf_counter() - started
    return evaluate(trainer.model, splits.validation).psnr_db, seconds


def theirs(trial: TrialParams, splits: Splits, seed: int) -> tuple[float, float]:
    """Returns the same of a notebook's loop."""
    torch.manual_seed(seed)
    channels, height, width = splits.image_shape
    model = build_model(trial.model, image_shape=(channels, height, width))
    pixels = splits.train.permute(0, 2, 3, 1).contiguous().numpy()
    batches = DataLoader(Pictures(pixels), batch_size=BATCH, shuffle=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[trial.train.optimizer]
    optimizer = kind(
        model.parameters(), lr=trial.train.learning_rate, weight_decay=trial.train.weight_decay
    )
    schedule: lr_scheduler.LRScheduler = lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if trial.train.schedule == "cosine":
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS)
    weights = penalised_weights(model)
    started = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for images in batches:
            optimizer.zero_grad()
            loss = _loss(model, trial, images, epoch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                for parameter in weights:
                    parameter.clamp_(-trial.train.clip, trial.train.clip)
            loss.item()
        schedule.step()
    seconds = time.perf_counter() - started
    return evaluate(model, splits.validation).psnr_db, seconds


def _loss(model: Autoencoder, trial: TrialParams, images: Tensor, epoch: int) -> Tensor:
    train, extra = trial.train, torch.zeros(())
    latents = model.encoder(images)
    if trial.model.variational:
        head = model.encoder[-1]
        assert isinstance(head, GaussianLatent)
        features = model.encoder[:-1](images)
        means, logs = head.mean(features), head.log_variance(features)
        latents = means + torch.randn_like(means) * torch.exp(0.5 * logs)
        divergence = -0.5 * torch.sum(1 + logs - means.pow(2) - logs.exp())
        weight = train.beta * min(epoch / (train.beta_warmup_epochs + 1), 1)
        extra = weight * divergence / images.numel()
    made = model.decoder(latents)
    if train.loss == "bce":
        return F.binary_cross_entropy(made, images) + extra
    loss = F.mse_loss(made, images)
    if train.ssim_weight:
        similarity: Any = structural_similarity_index_measure(made, images, data_range=1.0)
        loss = (1 - train.ssim_weight) * loss + train.ssim_weight * (1 - similarity)
    return loss + extra


if __name__ == "__main__":
    main()
