"""The table of reference results: says what was run, and nothing of what was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import references
from benchmarks.reference_rows import ROWS, Comparison, Row
from searchae.config import loader, study_file_catalog

KEYS = [row.key for row in ROWS]


def result() -> dict[str, Any]:
    return {
        "params": {"activation": "gelu", "learning_rate": 0.0031234},
        "budget": {
            "search": "5 complete, 11 pruned; 90 epochs",
            "search_seconds": 200.4,
            "reproduced_seconds": 150.0,
            "searched_seconds": 160.0,
            "images": 54000,
            "epochs": 10,
        },
        "seeds": [0, 1],
        "measures": [
            {
                "name": "training MSE",
                "published": "0.0079",
                "digits": 4,
                "reproduced": 0.00781,
                "searched": 0.00622,
            }
        ],
        "seconds": 512.0,
        "date": "2001-02-03",
        "machine": "two cores",
    }


@pytest.mark.parametrize("row", ROWS, ids=KEYS)
def test_every_row_s_study_can_be_read_and_begins_with_what_was_published(
    row: Row | Comparison, tmp_path: Path
) -> None:
    settings = {**row.source.settings(tmp_path), **row.settings, **row.search}
    words = references._settings(settings)
    spec = loader.load_study_file(
        study_file_catalog.find_study_file(row.study), environment={}, overrides=words[1::2]
    )
    assert spec.search.first[0]["activation"] == "relu"
    assert row.trials > len(spec.search.first), "it searches on"
    if isinstance(row, Row):
        assert spec.search.first[0]["learning_rate"] == 1e-3
        assert spec.search.first[0]["regularizer"] == "none"


def test_what_was_not_run_says_so_and_has_no_figures(tmp_path: Path) -> None:
    lines = references.table(tmp_path).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert all(line.count("not run") == 1 and "0.00" not in line for line in lines[2:])


def test_a_row_that_was_run_stands_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    (tmp_path / "D").mkdir()
    (tmp_path / "D" / "result.json").write_text(json.dumps(result()))
    text = references.table(tmp_path)
    (line,) = [part for part in text.splitlines() if part.startswith("| D")]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [
        "MNIST, all 60,000",
        "training MSE",
        "0.0079",
        "0.0078",
        "0.0062",
        "each 10 epochs of 54,000 images; search: 5 complete, 11 pruned; 90 epochs",
        "0, 1",
        "512 (search 200, trainings 150 and 160)",
    ]
    assert text.count("not run") == len(ROWS) - 1
    assert "- D: 2001-02-03, two cores. Searched: activation = gelu, learning_rate = 0.00312." in (
        text
    )


def test_an_unknown_row_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        references._options(["D", "F"])
    assert "unknown rows: F; there are A-svhn-gray-0" in capsys.readouterr().err


def test_a_comparison_stands_with_its_sentences_and_what_they_rest_on(tmp_path: Path) -> None:
    row = next(row for row in ROWS if isinstance(row, Comparison))
    sentence = "optimizer: adam beats sgd by 2.00 dB (95% interval 1.00 to 3.00)"
    compared = {
        "sentence": sentence,
        "half_width_db": 1.0,
        "bases": [{}, {}],
        "seeds": 3,
        "trainings": 12,
    }
    found = {
        "comparison": {
            "comparisons": [compared],
            "l1_curve": {"sentence": "l1_weight against no penalty: 1e-05: +0.10 dB"},
            "trainings": 40,
            "tries": 90,
            "epochs": 100,
        },
        "best_db": 25.126,
        "search_seconds": 180.0,
        "comparison_seconds": 2400.0,
        "seconds": 2580.0,
        "date": "2001-02-03",
        "machine": "two cores",
    }
    (tmp_path / row.key).mkdir()
    (tmp_path / row.key / "result.json").write_text(json.dumps(found))
    text = references.table(tmp_path)
    assert f"- {sentence} [half-width 1.00 dB; 2 bases, 3 seeds, 12 trainings]" in text
    assert "- l1_weight against no penalty: 1e-05: +0.10 dB" in text
    assert "best of the search 25.13 dB" in text
    assert "Search 3 minutes, comparison 40 minutes: 40 trainings of at most 100 epochs" in text
