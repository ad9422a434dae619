"""A user's script with every public name, for the type checker: see ``test_python_types.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import searchae
from searchae import (
    Bundle,
    ComparisonResult,
    Ranking,
    Search,
    SearchaeError,
    StudySpec,
    TrialRow,
    UserError,
)


class Squares(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images with labels."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 8, 8), index / 100), index


def search_all(storage: str) -> Search:
    """Searches in each way."""
    images = np.zeros((10, 8, 8), np.uint8)
    searchae.tune("svhn", trials=200, workers=4, storage=storage, data_dir=Path("data"))
    searchae.tune(Path("mine.toml"), set={"train.epochs": 5}, seed=1, max_hours=0.5)
    searchae.tune("quickstart", images=images, name="mine", workers_per_device="auto")
    searchae.tune("quickstart", images=torch.from_numpy(images), name="same", quiet=True)
    tables = {"data": {"name": "svhn"}, "train": {"optimizer": {"choices": ["adam", "sgd"]}}}
    first = searchae.tune(tables, name="own", images=Squares(), warm_start="svhn")
    spec: StudySpec = first.spec
    return searchae.tune(spec, name="again", launcher="slurm", slurm={"partition": "gpu"})


def use(search: Search) -> str:
    """Uses what was found."""
    best: TrialRow = search.best
    rate = float(best.params["learning_rate"])
    search.figure("history").show()
    page: Path = search.report("report.html")
    result: ComparisonResult = search.compare(by=["optimizer"], until=0.5)
    ranking: Ranking = search.compare(top=3, seeds=2)
    model: Bundle = search.train()
    model = search.train("winner", trial="winner", epochs=50, seeds=3)
    codes = model.encode(torch.zeros(2, 3, 32, 32))
    pictures: torch.Tensor = model.decode(codes)
    done = search.status()["trials"]["complete"]
    frame = search.trials()
    return f"{rate} {page} {result.sentences} {ranking.winner.mean_db} {pictures} {done} {frame}"


def main() -> int:
    """Runs all of it."""
    try:
        use(searchae.open("svhn", storage=search_all("sqlite:///searchae.db").name))
        searchae.load("best", device="cpu", factory="nets.py:build")
    except searchae.errors.NoStudyError:
        return 1
    except UserError as error:
        return error.exit_code
    except SearchaeError:
        return len(searchae.__version__)
    return 0
