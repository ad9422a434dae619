"""A k-sparse net after its training: what was validated is what is measured and kept."""

from __future__ import annotations

import pytest
import torch

from searchae.bundle.model import bundle_from_weights
from searchae.config.schema import TrainParams
from searchae.errors import BundleError
from searchae.training.trainer import Trainer
from searchae.worker.best_epoch import BestEpoch
from searchae.worker.measurement import measure_training
from tests.unit import bundles
from tests.unit.tiny_training import CPU, VALIDATION, params, trainer

TRIAL = params(regularizer="clip+k-sparse", active_latents=2, epochs=2)


@pytest.fixture(scope="module")
def trained() -> tuple[Trainer, BestEpoch]:
    run, best = trainer(TRIAL), BestEpoch()
    for result in run.epochs():
        best.update(run.state(), result)
    return run, best


def test_it_is_measured_as_it_was_validated(trained: tuple[Trainer, BestEpoch]) -> None:
    run, best = trained
    record = measure_training(
        TRIAL,
        best,
        VALIDATION,
        seed=3,
        ended="complete",
        history=run.history,
        device=CPU,
        keep_weights=False,
        runtime={},
    )
    assert float(record.psnr_db.mean()) == pytest.approx(best.psnr_db, abs=1e-5)
    assert record.sparsity >= 0.5, "two of four latents"


def test_its_bundle_encodes_as_it_did(trained: tuple[Trainer, BestEpoch]) -> None:
    run, _ = trained
    config = bundles.config(
        model=TRIAL.model, train=TRIAL.train, image_shape=(1, 8, 8), latent_size=4
    )
    weights = dict(run.model.state_dict())
    model = bundle_from_weights(config, weights, device=CPU)
    images = VALIDATION / 255
    latents = model.encode(images)
    assert (latents.count_nonzero(1) == 2).all()
    with torch.inference_mode():
        run.model.eval()
        torch.testing.assert_close(latents, run.model.encode(images))
        torch.testing.assert_close(model.reconstruct(images), run.model(images))
    too_many = TrainParams(regularizer="k-sparse", active_latents=5)
    with pytest.raises(BundleError, match=r"cannot be built: train\.active_latents: 5"):
        bundle_from_weights(config.model_copy(update={"train": too_many}), weights, device=CPU)
