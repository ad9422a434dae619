"""What the dashboard says of a trial and a study, and a trial's curves."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from searchae.config.loader import spec_from_document
from searchae.dashboard import curves, notes
from searchae.report.findings import TrialRun
from searchae.study.attributes import ERROR, WARM_START
from searchae.study.epoch_history import HISTORY_COLUMNS
from searchae.study.stored_study import StoredStudy
from searchae.study.summary import TrialRow
from tests.unit.test_cli_console import SUMMARY


def row(**changes: Any) -> TrialRow:
    return TrialRow(
        **{
            "number": 4,
            "state": "complete",
            "psnr_db": 21.386,
            "params": {"optimizer": "adam", "learning_rate": 0.00627},
            "epochs": 5,
            "outcome": "",
            "seconds": 3.0,
            "imported": False,
            **changes,
        }
    )


def note(row: TrialRow, attributes: dict[str, Any] | None = None, *, name: str = "s") -> str:
    spec = spec_from_document({"data": {"name": "svhn"}, "train": {"epochs": 5}}, source="test")
    study = SimpleNamespace(study_name=name, _study_id=1)
    stored = StoredStudy(study, None, spec, "a" * 64, 14.75, 1)  # type: ignore[arg-type]
    return notes.trial_note(stored, row, attributes or {}, {})


def run(row: TrialRow, reports: Mapping[Any, float], history: Any = None) -> TrialRun:
    return TrialRun(row, dict(reports), history or {}, {}, "", None, None)


def test_a_trial_is_told_with_its_parameters_and_its_command() -> None:
    said = note(row())
    assert said.startswith(
        "**21.39 dB** on the validation split after epoch 5 of 5, 6.64 dB above the baseline."
    )
    assert r"optimizer **adam**, learning\_rate **0.00627**" in said
    assert "\nsearchae train --study s --trial 4 --out trial-4\n" in said


@pytest.mark.parametrize(
    ("changes", "attributes", "said", "trains"),
    [
        ({"state": "pruned", "epochs": 2}, {}, "**Pruned after epoch 2 of 5**, at 21.39 dB", True),
        ({"epochs": 3}, {}, "when it had stopped improving", True),
        ({"psnr_db": 10.0}, {}, "4.75 dB below the baseline", True),
        (
            {"outcome": "diverged", "epochs": 2},
            {ERROR: "loss is NaN"},
            "**Ended badly: diverged** after epoch 2 of 5.\n\n```\nloss is NaN\n```",
            False,
        ),
        ({"outcome": "lost", "state": "failed", "psnr_db": None}, {}, "badly: lost**.", False),
        ({"state": "running"}, {}, "**Running**: 21.39 dB after epoch 5 of 5.", False),
        ({"state": "waiting", "psnr_db": None}, {}, "**Waiting**.", False),
        ({"imported": True}, {WARM_START: "old #3"}, r"Taken over from old \#3", True),
    ],
)
def test_how_a_trial_stands_is_told(
    changes: dict[str, Any], attributes: dict[str, Any], said: str, trains: bool
) -> None:
    text = note(row(**changes), attributes)
    assert said in text
    # Of a trial that ended badly, or has not ended, `searchae train` makes nothing.
    assert ("searchae train" in text) == trains


HOSTILE = "a`` ``` \n\n# b <img src=x onerror=y> [c](javascript:d) ![e](//f) |g| **h** &lt;"


def test_what_comes_from_outside_stays_text() -> None:
    text = note(row(params={HOSTILE: HOSTILE}))
    line = next(part for part in text.split("\n\n") if "onerror" in part)
    assert "\n" not in line
    # Each character that would begin something is escaped, but for the bold around the value.
    ours = line.replace(" **", " ", 1).removesuffix("**")
    assert re.search(r"(?<!\\)[`*\[\]<>|&#!]", ours) is None


def test_a_fence_is_longer_than_any_within() -> None:
    text = note(row(outcome="diverged"), {ERROR: "x\n````\n<img>\n````"})
    assert "`````\nx\n````\n<img>\n````\n`````" in text
    assert "\n````\nsearchae train --study 'a```b' " in note(row(), name="a```b")


HISTORY = dict.fromkeys(HISTORY_COLUMNS, (0.05, 0.03, 0.02))
REPORTS = {1: 15.0, 2: 18.5, 3: 19.0}


def labels(svg: str) -> list[str]:
    return [str(t.text) for t in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_curves_show_the_trial_the_best_and_the_baseline() -> None:
    best = run(row(number=9), {1: 16.0, 2: 20.0, 3: 22.0, 4: 22.5}, HISTORY)
    shown = labels(curves.draw_curves(run(row(), REPORTS, HISTORY), best=best, baseline_db=14.0))
    assert {"trial 4", "best: trial 9", "baseline", "validation", "training (dotted)"} <= {*shown}
    itself = labels(curves.draw_curves(best, best=best, baseline_db=14.0))
    assert "trial 9" in itself
    assert "best: trial 9" not in itself


@pytest.mark.parametrize(
    "run_",
    [
        run(row(psnr_db=None, epochs=0), {}),
        run(row(), {1: 14.0}),
        run(row(), {1: 14.0, 2: 14.0}, dict.fromkeys(HISTORY_COLUMNS, (0.05, 0.05))),
        run(row(), {1: -300.0, 50: 20.0}, dict.fromkeys(HISTORY_COLUMNS, (1e30, 0.0, 1e-09))),
        run(row(), REPORTS, dict.fromkeys(HISTORY_COLUMNS, (0.0, 0.0, 0.0))),
    ],
    ids=["nothing", "one epoch", "level", "far apart", "all zero"],
)
def test_curves_stay_within_the_picture(run_: TrialRun) -> None:
    svg = curves.draw_curves(run_, best=None, baseline_db=14.0)
    panels = 2 if run_.history else 1
    root = ET.fromstring(svg)
    assert root.get("width") == str(panels * curves.WIDTH)
    for node in root.iter():
        for name, limit in (("x", curves.WIDTH), ("y", curves.HEIGHT)):
            assert 0 <= float(node.get(name, "0")) <= limit
        for x, y in re.findall(r"[ML]([-\d.naif]+) ([-\d.naif]+)", node.get("d", "")):
            assert 0 <= float(x) <= curves.WIDTH
            assert 0 <= float(y) <= curves.HEIGHT
    assert labels(svg)


def test_a_list_of_trainings_is_not_told_as_a_search() -> None:
    said = notes.study_note(replace(SUMMARY, best=None, trainings_of="tiny"))
    assert "trainings of `searchae compare` and `searchae train` for study tiny" in said
    assert "No trial has trained" not in said
    assert "searchae tune" not in said
