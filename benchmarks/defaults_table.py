"""A table of trained configurations with their whole learning curves: what searches replay on.

A configuration is a point of a space like that of ``studies/svhn.toml``. Each choice of activation,
optimizer and regularizer has equally many, with learning rates (and L1 weights) spread over their
ranges: one at random in each of equal parts of the logarithm.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed_search import study_text
from searchae import data
from searchae.config import loader, space
from searchae.config.parameters import Parameter
from searchae.config.schema import TrialParams
from searchae.config.study_spec import StudySpec
from searchae.errors import DivergedError
from searchae.training.metrics import mean_image_psnr_db
from searchae.training.trainer import Trainer

Settings = Mapping[str, Any]
"""``images``, ``epochs`` and ``configs``; where they are not the usual ones also ``batch_size`` and
``shares``, those of the first epoch after which a net was measured."""
Params = dict[str, Any]

BATCH_SIZE = 32
CIFAR10 = "cifar10_10k.npz"
DATA: dict[str, tuple[dict[str, str], int]] = {
    "mnist": ({"name": "mnist"}, 16),
    "cifar10": ({"name": "npz", "path": CIFAR10}, 64),
}
"""Name -> ``[data]`` and the size of the latent."""
MORE_DATA = {**DATA, "svhn": ({"name": "npz", "path": "svhn_gray.npz"}, 64)}
"""With those that are used only where they are named."""
SPEED = "speed"
"""The table of what ``benchmarks.speed search`` searches."""
TABLES = [*MORE_DATA, SPEED]
CHOICES = {
    "activation": ["relu", "sigmoid", "tanh"],
    "optimizer": ["adam", "rmsprop", "sgd"],
    "regularizer": ["none", "clip", "clip+l1"],
}
RANGES = {"learning_rate": (1e-5, 1e-1), "l1_weight": (1e-7, 1e-2)}
APART = {"learning_rate": 1.0, "l1_weight": 0.2}
"""How far apart the ends of a range are; two choices are 1 apart. The rate matters most."""


def document(
    name: str, settings: Settings, *, seed: int = 0, search: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The study file of a table's space."""
    if name == SPEED:
        found = tomllib.loads(study_text(CIFAR10, trials=1, epochs=settings["epochs"]))
        found["data"]["train_images"] = settings["images"]
        return {**found, "seed": seed, "search": dict(search or {})}
    source, latent = MORE_DATA[name]
    searched = {k: {"choices": v} for k, v in CHOICES.items()}
    ranges = {k: {"low": v[0], "high": v[1], "log": True} for k, v in RANGES.items()}
    return {
        "seed": seed,
        "data": {**source, "train_images": settings["images"], "validation": 0.2},
        "model": {
            "channels": [8, 16],
            "latent_dim": latent,
            "activation": searched["activation"],
        },
        "train": {
            "epochs": settings["epochs"],
            "batch_size": settings.get("batch_size", BATCH_SIZE),
            "optimizer": searched["optimizer"],
            "learning_rate": ranges["learning_rate"],
            "regularizer": searched["regularizer"],
            "l1_weight": ranges["l1_weight"],
        },
        "search": dict(search or {}),
    }


def configurations(name: str, settings: Settings) -> list[Params]:
    """The configurations to train, in an order whose beginning is balanced too."""
    spec = loader.spec_from_document(document(name, settings), source="benchmark")
    ranges = {p.name: p for p in spec.space if not p.choices}
    choices = {p.name: p.choices for p in spec.space if p.choices}
    count = settings["configs"]
    rng = np.random.default_rng(0)
    cells = [dict(zip(choices, c, strict=True)) for c in product(*choices.values())]
    parts = math.ceil(count / len(cells))
    drawn = {
        key: (np.array([rng.permutation(parts) for _ in cells]) + rng.random((len(cells), parts)))
        for key in ranges
    }
    found = []
    for part in range(parts):
        for i in rng.permutation(len(cells)):
            params: Params = dict(cells[i])
            for key, p in ranges.items():
                if key == "learning_rate" or "l1" in params["regularizer"]:
                    params[key] = float(p.low * (p.high / p.low) ** (drawn[key][i, part] / parts))
            found.append(params)
    return found[:count]


@dataclass(frozen=True)
class Curve:
    """One trained configuration.

    Attributes:
        params: Name -> value.
        psnr_db: Of the validation split after each epoch; fewer if it diverged.
        diverged: Whether it did.
        within: Share of the first epoch -> PSNR of a sample of the validation split after it.
    """

    params: Params
    psnr_db: tuple[float, ...]
    diverged: bool
    within: Mapping[float, float]

    def at(self, epochs: float) -> float | None:
        """The PSNR in dB after so many epochs; None if it has diverged by then."""
        if epochs < 1:
            return self.within.get(epochs)
        return self.psnr_db[int(epochs) - 1] if epochs <= len(self.psnr_db) else None


@dataclass(frozen=True)
class Table:
    """A data set's curves.

    Attributes:
        name: The data set's.
        settings: What it was trained with.
        baseline_db: PSNR of the mean image: the value of a trial that diverged.
        curves: One a configuration.
    """

    name: str
    settings: Settings
    baseline_db: float
    curves: tuple[Curve, ...]

    @property
    def best_db(self) -> float:
        """The best final PSNR."""
        return max(c.psnr_db[-1] for c in self.curves if not c.diverged)

    def spec(self, *, seed: int, search: Mapping[str, Any]) -> StudySpec:
        """A study of the table's space."""
        found = document(self.name, self.settings, seed=seed, search=search)
        return loader.spec_from_document(found, source="benchmark")

    def nearest(self, params: Mapping[str, Any], *, without: frozenset[int]) -> int:
        """The configuration that stands for a suggested one.

        Args:
            params: The suggested one.
            without: Configurations that may not be taken.
        """
        order = (i for i in range(len(self.curves)) if i not in without)
        return min(order, key=lambda i: self._distance(params, self.curves[i].params))

    def _distance(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
        far = 0.0
        for p in self.space:
            if p.choices:
                far += a[p.name] != b[p.name]
            elif p.name in a and p.name in b:
                share = abs(math.log(a[p.name] / b[p.name])) / math.log(p.high / p.low)
                far += APART[p.name] * share
        return far

    @cached_property
    def space(self) -> tuple[Parameter, ...]:
        """The searched parameters."""
        return self.spec(seed=0, search={}).space


def read(work: Path, name: str) -> Table:
    """A table.

    Raises:
        SystemExit: It is not trained, or not whole.
    """
    path = work / f"{name}.jsonl"
    head, *rows = read_lines(path) or [None]
    if head is None or len(rows) < head["settings"]["configs"]:
        raise SystemExit(f"{path}: not whole; make it with: python -m benchmarks.defaults train")
    curves = tuple(
        Curve(
            params=r["params"],
            psnr_db=tuple(r["psnr_db"]),
            diverged=r["diverged"],
            within={float(share): psnr_db for share, psnr_db in r.get("within", {}).items()},
        )
        for r in rows
    )
    return Table(name, head["settings"], head["baseline_db"], curves)


def read_lines(path: Path) -> list[Any]:
    """The objects of a JSON-lines file; a last line that was torn is cut off."""
    if not path.exists():
        return []
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        path.write_bytes(whole + b"\n" if whole else b"")
    return [json.loads(line) for line in whole.splitlines()]


def train(
    name: str,
    settings: Settings,
    *,
    data_dir: Path,
    work: Path,
    processes: int,
    say: Callable[[str], None],
) -> None:
    """Trains what is missing of a table.

    Args:
        name: The data set's.
        settings: What to train.
        data_dir: Where data sets lie.
        work: Gets the table, a file of JSON lines.
        processes: How many, of one thread each.
        say: Gets a line of progress.

    Raises:
        SystemExit: The folder holds a table with other settings.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}.jsonl"
    found = read_lines(path)
    if not found:
        splits = _splits(name, settings, data_dir)
        baseline_db = mean_image_psnr_db(splits.train, splits.validation)
        head = {"settings": dict(settings), "baseline_db": float(baseline_db)}
        path.write_text(json.dumps(head) + "\n")
        found = [head]
    if found[0]["settings"] != dict(settings):
        raise SystemExit(f"{path}: has {found[0]['settings']}; give these, or another --work")
    done = {row["index"] for row in found[1:]}
    missing = [(i, p) for i, p in enumerate(configurations(name, settings)) if i not in done]
    if not missing:
        say(f"{name}: all {len(done)} configurations are trained")
        return
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(processes, _begin, (name, settings, data_dir)) as pool,
        path.open("a") as file,
    ):
        for count, row in enumerate(pool.imap_unordered(_trained, missing), start=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            if count % 12 == 0 or count == len(missing):
                each_s = (time.monotonic() - started) / count
                left = f"{each_s:.1f} s each, {each_s * (len(missing) - count) / 60:.0f} min left"
                say(f"{name}: {len(done) + count} of {settings['configs']} trained, {left}")


def _splits(name: str, settings: Settings, data_dir: Path) -> data.Splits:
    spec = loader.spec_from_document(document(name, settings), source="benchmark")
    return data.load_splits(spec.data, data_dir=data_dir, seed=spec.seed)


_here: dict[str, Any] = {}
"""What a training process has read once."""


def _begin(name: str, settings: Settings, data_dir: Path) -> None:
    torch.set_num_threads(1)
    _here["spec"] = loader.spec_from_document(document(name, settings), source="benchmark")
    _here["splits"] = _splits(name, settings, data_dir)
    _here["shares"] = settings.get("shares", ())


def _trained(task: tuple[int, Params]) -> dict[str, Any]:
    index, values = task
    params: TrialParams = space.params_of_trial(_here["spec"], values)
    splits: data.Splits = _here["splits"]
    trainer = Trainer(
        params,
        train=splits.train,
        validation=splits.validation,
        seed=0,
        device=torch.device("cpu"),
        shares=_here["shares"],
    )
    found: dict[str, Any] = {"index": index, "params": values, "psnr_db": [], "diverged": False}
    within: dict[float, float] = {}
    try:
        for result in trainer.results():
            psnr_db = round(result.psnr_db, 4)
            if result.share < 1:
                within[result.share] = psnr_db
            else:
                found["psnr_db"].append(psnr_db)
    except DivergedError:
        found["diverged"] = True
    return found | ({"within": within} if within else {})
