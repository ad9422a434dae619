"""Trials for other tools: CSV, Parquet, TensorBoard, Python."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

import searchae.report
from searchae.errors import NoStudyError, UserError
from searchae.report import frame, tensorboard
from searchae.report.findings import Findings, collect_findings
from tests.reported_study import EPOCHS, add, make_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def found(folder: Path) -> Findings:
    stored = make_study(folder, 6)
    add(stored, outcome="diverged", error="nan", epochs=0)
    add(stored, TrialState.RUNNING, epochs=0)
    return collect_findings(stored, artifacts=folder)


def test_a_csv_file_has_a_line_a_trial(tmp_path: Path, found: Findings) -> None:
    path = tmp_path / "t.csv"
    frame.write_csv(path, found.spec, found.runs)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["number"]) for line in lines] == list(range(8))
    assert [line["state"] for line in lines[:3]] == ["complete", "complete", "pruned"]
    first, run = lines[0], found.runs[0]
    assert float(first["psnr_db"]) == run.psnr_db, "to the bit"
    assert json.loads(first["params_channels"]) == run.row.params["channels"]
    assert first["started"].endswith("+00:00")
    assert (first["precision"], first["kernels"]) == ("fp32", "winograd")
    assert lines[6]["outcome"] == "diverged"
    assert lines[6]["val_mse"] == lines[7]["psnr_db"] == lines[7]["ended"] == ""


def test_a_parquet_file_holds_the_same_with_types(tmp_path: Path, found: Findings) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    frame.write_parquet(path, found.spec, found.runs)
    table = parquet.read_table(path)
    assert table.to_pylist() == frame.rows(found.spec, found.runs)
    kinds = {f.name: str(f.type) for f in table.schema}
    assert kinds["params_learning_rate"] == "double"
    assert kinds["params_batch_size"] == "int64"
    assert kinds["params_channels"] == kinds["params_activation"] == "string"


def test_a_study_without_trials_has_its_columns(tmp_path: Path) -> None:
    found = collect_findings(make_study(tmp_path), artifacts=tmp_path)
    frame.write_csv(tmp_path / "t.csv", found.spec, found.runs)
    head = (tmp_path / "t.csv").read_text()
    assert head.startswith("number,state,outcome,psnr_db,")
    assert head.endswith("params_l1_weight\n")


def test_trials_come_as_rows_in_python(folder: Path, found: Findings) -> None:
    assert searchae.report.trials is frame.trials
    rows = frame.trials("s", f"sqlite:///{folder}/searchae.db")
    assert rows == frame.rows(found.spec, found.runs)
    assert rows[0]["params_learning_rate"] == found.runs[0].row.params["learning_rate"]


def test_reading_trials_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(NoStudyError, match="there is no database at"):
        frame.trials("s", f"sqlite:///{tmp_path}/missing.db")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_epoch_and_the_parameters(tmp_path: Path, found: Findings) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):  # the second time replaces the first
        assert tensorboard.write_tensorboard(tmp_path, found.runs) == 6
    run = found.runs[0]
    read = events.EventAccumulator(str(tmp_path / "trial-000000"))
    read.Reload()
    psnr = read.Scalars("psnr_db")
    assert [e.step for e in psnr] == list(range(1, EPOCHS + 1))
    assert [e.value for e in psnr] == pytest.approx(list(run.reports.values()))
    losses = [e.value for e in read.Scalars("val_mse")]
    assert losses == pytest.approx(list(run.history["val_mse"]))
    assert run.started is not None
    assert psnr[0].wall_time == pytest.approx(run.started.timestamp() + 0.25)
    assert "_hparams_/session_start_info" in read.summary_metadata
    assert not (tmp_path / "trial-000007").exists(), "it has not ended an epoch"


def parquet(path: Path, found: Findings) -> None:
    frame.write_parquet(path, found.spec, found.runs)


def board(path: Path, found: Findings) -> None:
    tensorboard.write_tensorboard(path, found.runs)


@pytest.mark.parametrize(
    ("package", "extra", "write"),
    [("pyarrow", "parquet", parquet), ("torch.utils.tensorboard", "tensorboard", board)],
)
def test_a_missing_package_is_named_with_what_to_install(
    tmp_path: Path,
    found: Findings,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
    write: Callable[[Path, Findings], None],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"pip install '\.\[{extra}\]'"):
        write(tmp_path / "t", found)
    assert list(tmp_path.iterdir()) == []
