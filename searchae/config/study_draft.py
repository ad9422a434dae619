"""A new study file for somebody's images: a built-in study, adapted and commented."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from searchae.config.draft_settings import (
    Shape,
    Table,
    draft_model,
    draft_train,
    noise_epoch,
)
from searchae.config.loader import apply_overrides, spec_from_document
from searchae.config.schema import Activation, Optimizer
from searchae.config.study_file_catalog import built_in_studies
from searchae.config.study_spec import StudySpec
from searchae.config.toml_file import read_toml, toml_value
from searchae.errors import UserError, nearest

USUAL = "conv"
LIKES: Mapping[str, str] = {
    USUAL: "cifar10",
    "dense": "dense",
    "pool-conv": "pool-conv",
    "pool-conv-8x8": "pool-conv-8x8",
    "conv-bn": "conv-bn",
    "gap-conv": "gap-conv",
    "same-size": "same-size",
    "svhn": "svhn",
    "mnist": "mnist",
    "cifar10": "cifar10",
    "quickstart": "quickstart",
}
"""What a new study may be like -> the built-in study that its net and its search come from."""

_COLUMN, _WIDEST = 33, 100
"""Where comments begin, and the longest line with one behind its value."""

_COMMENTS = {
    "model.kind": 'or "dense"; a net of your own is "python"',
    "model.hidden": "widths of the layers before the latent; mirrored on the way back",
    "model.downsample": "max-pooling halves the images; the decoder enlarges them again",
    "model.batch_norm": "batch normalisation before each activation",
    "model.latent_activation": "none, or the same as between the layers",
    "model.output": "of the reconstruction",
    "model.image_range": "the net's inputs and outputs are in [-1, 1]; metrics are on [0, 1]",
    "train.learning_rate": "log: each power of ten alike",
    "train.weight_decay": "L2 coefficient, added to the gradient",
    "train.momentum": "of sgd and rmsprop",
    "train.clip": "after each step every weight is within [-clip, clip]",
    "train.regularizer": "or l1, contractive, k-sparse; clip+ joins two",
    "train.l1_weight": "sampled only where there is an L1 penalty",
    "train.noise_std": "denoising: noise on the input, on the scale [0, 1] of the images",
    "train.schedule": "the learning rate falls when the validation PSNR does not rise",
    "train.patience": "ends a training whose PSNR has not risen for so many epochs",
    "search.trials": "trainings, most of which are stopped early",
    "search.sampler": "or random, gp",
    "search.pruner": "stops poor trials early; or hyperband, median, asha, none",
}


@dataclass(frozen=True)
class DraftImages:
    """What a draft has to know of the images.

    Attributes:
        keys: The keys of ``[data]`` and their values, in the order in which they are written.
        reasons: Keys of ``[data]`` -> why they have that value.
        shape: (C, H, W) of the images, as the nets get them.
        train: Training images, without those of the validation split.
        text: What the images are, in words.
        splits: How many there are for what, in words.
    """

    keys: Mapping[str, Any]
    reasons: Mapping[str, str]
    shape: Shape
    train: int
    text: str
    splits: str


@dataclass(frozen=True)
class StudyDraft:
    """A new study file.

    Attributes:
        text: The file.
        spec: What it says.
    """

    text: str
    spec: StudySpec


def draft_study(
    images: DraftImages,
    *,
    name: str,
    like: str = USUAL,
    trials: int | None = None,
    overrides: Sequence[str] = (),
) -> StudyDraft:
    """Writes a study file.

    Args:
        images: What its images are.
        name: What commands call the study.
        like: One of ``LIKES``.
        trials: Its trials; those of the study that it is like if unset.
        overrides: ``section.key=value`` of what is to be otherwise; see ``load_study_file``.

    Raises:
        UserError: ``like`` is unknown, its net does not suit the images, or an override is wrong.
    """
    built_in = read_toml(built_in_studies()[LIKES[check_like(like)]])
    model = draft_model(built_in["model"], images.shape, like=like)
    train = draft_train(built_in["train"], images=images.train)
    search = {
        "trials": trials or built_in["search"]["trials"],
        "sampler": "tpe",
        "pruner": "successive-halving",
        **{k: v for k, v in built_in["search"].items() if k != "trials"},
    }
    search["first"] = [_first(entry, train) for entry in built_in["search"].get("first", ())]
    document = {
        "description": f"{_short(images.text)}; nets as in {like}",
        "data": dict(images.keys),
        "model": model,
        "train": train,
        "search": search,
    }
    origins = apply_overrides(document, overrides)
    spec_from_document(document, source="the new study", origins=origins)
    comments = {**_COMMENTS, **_computed_comments(document, images)}
    comments |= {f"data.{key}": reason for key, reason in images.reasons.items()}
    comments = {k: c for k, c in comments.items() if k not in origins}
    text = _header(images, name, like) + _toml(document, comments)
    spec = spec_from_document(tomllib.loads(text), source="the new study", origins=origins)
    return StudyDraft(text, spec)


def check_like(like: str) -> str:
    """Returns the name of what a study is like.

    Raises:
        UserError: There is no such net.
    """
    if like not in LIKES:
        raise UserError(f"--like {like!r}: is not known; {nearest(like, LIKES)}")
    return like


def _first(entry: Mapping[str, Any], train: Table) -> Table:
    """Returns a trial that the search begins with; its noise begins at the epoch of this study."""
    is_late = entry.get("noise_from_epoch", 1) > 1
    return {**entry, "noise_from_epoch": noise_epoch(train["epochs"])} if is_late else dict(entry)


def _computed_comments(document: Mapping[str, Any], images: DraftImages) -> dict[str, str]:
    """Returns comments with numbers: key -> comment."""
    model, train = document["model"], document["train"]
    channels, height, width = images.shape
    found = {}
    if model.get("kind") == "dense":
        found["model.kind"] = 'fully connected layers; or "conv"'
    if isinstance(widths := model.get("channels"), list):
        sides = [f"{height}x{width}"]
        for _ in widths:
            height, width = -(-height // 2), -(-width // 2)
            sides.append(f"{height}x{width}")
        found["model.channels"] = f"widths; each layer halves: {' -> '.join(sides)} pixels"
    bottleneck = model.get("bottleneck", "dense")
    found["model.bottleneck"] = {
        "gap": "global average pooling: each map becomes one number",
        "none": "the last feature map is the latent, larger than the image",
    }.get(bottleneck, "")
    values = channels * images.shape[1] * images.shape[2]
    found["model.latent_dim"] = (
        "the last width"
        if bottleneck == "gap"
        else f"what {values:,} values become; more reconstruct better"
    )
    for key, known in (("model.activation", Activation), ("train.optimizer", Optimizer)):
        section, _, name = key.partition(".")
        found[key] = _others(document[section].get(name), get_args(known))
    if isinstance(size := train.get("batch_size"), int) and size > 0:
        steps = -(-images.train // size)
        found["train.batch_size"] = f"images a step; {steps:,} steps are an epoch"
    found["train.epochs"] = f"of a whole training, of {images.train:,} images each"
    return found


def _others(value: Any, known: Sequence[str]) -> str:
    """Returns which names a list of choices, or a single one, leaves out, as a comment."""
    listed = value.get("choices", ()) if isinstance(value, Mapping) else (value,)
    others = [name for name in known if name not in listed]
    return f"or {', '.join(others)}" if others else ""


def _header(images: DraftImages, name: str, like: str) -> str:
    text = (
        f"Written by searchae init for these images: {images.text}. They are split into "
        f"{images.splits}. Net and search come from the built-in study {LIKES[like]} "
        f"(--like {like}); widths, epochs and batches are fitted to these images."
    )
    more = (
        "Any value under [model] or [train] may be a range or a list of choices: that alone makes "
        "it searched. A plain value is the same in all trials. Every key is described in "
        "docs/reference/study-file.md of searchae."
    )
    lines = [*_wrapped(text), "#", *_wrapped(more), "#"]
    lines.append(f"# searchae tune -s {name} --dry-run   checks this file, says how long it takes")
    return "\n".join(lines) + "\n\n"


def _toml(document: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    tables = {k: v for k, v in document.items() if isinstance(v, Mapping)}
    plain = {k: v for k, v in document.items() if k not in tables}
    parts = [_lines("", plain, comments)]
    for name, table in tables.items():
        first = table.get("first", ()) if name == "search" else ()
        others = {k: v for k, v in table.items() if not (name == "search" and k == "first")}
        parts.append(f"[{name}]\n{_lines(f'{name}.', others, comments)}")
        for i, entry in enumerate(first):
            what = "more of these tables, more trials" if i else "the search begins with this trial"
            head = f"{'[[search.first]]':{_COLUMN}}# {what}"
            parts.append(f"{head}\n{_lines('search.first.', entry, {})}")
    return "\n\n".join(parts) + "\n"


def _lines(prefix: str, table: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    found: list[str] = []
    for key, value in table.items():
        line, comment = f"{key} = {_value(value)}", comments.get(f"{prefix}{key}", "")
        behind = f"{line:{_COLUMN - 2}}  # {comment}"
        if not comment:
            found.append(line)
        elif "\n" not in line and len(behind) <= _WIDEST:
            found.append(behind)
        else:
            found += [*_wrapped(comment), line]
    return "\n".join(found)


def _value(value: Any) -> str:
    """Returns a value as TOML, the layers of a net a line each."""
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        return "[\n" + "".join(f"    {toml_value(v)},\n" for v in value) + "]"
    return toml_value(value)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDEST - 4,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _short(text: str) -> str:
    return text.partition(";")[0]
