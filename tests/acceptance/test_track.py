"""``--track``: MLflow's own client, and W&B's own files, have the search."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import searchae
from searchae.tuning.mlflow_tracker import MlflowTracker
from searchae.tuning.trackers import outage_text
from tests.conftest import RunCommand
from tests.forked_commands import start_command
from tests.free_port import free_port
from tests.mlflow_server import curve_of, mlflow_server, runs_of

TUNE = ("tune", "-s", "tiny", "--workers", "1", "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server."""
    pytest.importorskip("mlflow", reason="install mlflow-skinny")
    pytest.importorskip("flask_cors", reason="install flask-cors")
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        yield url


@pytest.fixture
def environment(server: str, folder: Path) -> dict[str, str]:
    """What a user sets, with an experiment of this test's own."""
    return {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": folder.name}


@pytest.fixture
def client(server: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(server)


def stored_rows(folder: Path) -> dict[int, dict[str, Any]]:
    search = searchae.open("tiny", storage=f"sqlite:///{folder}/searchae.db")
    found = search.trials()
    rows = found if isinstance(found, list) else found.to_dict("records")
    return {row["number"]: row for row in rows}


def check_curves(client: Any, trials: dict[int, Any], folder: Path) -> None:
    """Each ended trial has one point an epoch, and the last one is what the database says."""
    for number, row in stored_rows(folder).items():
        curve = curve_of(client, trials[number])
        assert [step for step, _ in curve] == list(range(1, int(row["epochs"]) + 1)), number
        if row["state"] == "pruned":
            assert curve[-1][1] == pytest.approx(row["psnr_db"])
        assert curve_of(client, trials[number], "epochs") == [(0, row["epochs"])]
        assert trials[number].info.status == "FINISHED"


@pytest.mark.fleet
def test_mlflow_s_own_client_reads_the_search_and_the_same_command_adds_what_is_new(
    command_line: RunCommand, folder: Path, environment: dict[str, str], client: Any
) -> None:
    done = command_line(*TUNE, "--trials", "3", "--track", "mlflow", **environment)
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)["best"]
    parent, trials, _ = runs_of(client, folder.name)
    assert sorted(trials) == [0, 1, 2]
    check_curves(client, trials, folder)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["searchae.best_trial"] == str(best["number"])
    marked = [n for n, r in trials.items() if r.data.tags.get("searchae.best") == "true"]
    assert marked == [best["number"]]
    assert trials[marked[0]].data.metrics["result_psnr_db"] == pytest.approx(best["psnr_db"])
    assert trials[marked[0]].data.params["learning_rate"] == str(best["params"]["learning_rate"])
    files = [f.path for f in client.list_artifacts(trials[marked[0]].info.run_id)]
    assert files == ["reconstructions.png"]
    # More trials go to the same run of the study.
    done = command_line(*TUNE, "--trials", "5", "--track", "mlflow", **environment)
    assert done.returncode == 0, done.stderr
    again, trials, runs = runs_of(client, folder.name)
    assert again.info.run_id == parent.info.run_id
    assert len(runs) == 6
    check_curves(client, trials, folder)
    best = json.loads(done.stdout)["best"]
    marked = [n for n, r in trials.items() if r.data.tags.get("searchae.best") == "true"]
    assert marked == [best["number"]]


@pytest.mark.fleet
def test_a_killed_search_goes_on_in_the_same_runs(
    searchae: RunCommand, folder: Path, environment: dict[str, str], client: Any
) -> None:
    changes = ("--set", "train.epochs=60", "--set", "search.pruner=none")
    words = (*TUNE, "--trials", "4", *changes, "--track", "mlflow")
    first = start_command(*words, cwd=folder, env={**os.environ, **environment})
    deadline = time.monotonic() + 200
    begun: Any = None
    while not begun and time.monotonic() < deadline:
        time.sleep(0.5)
        if client.get_experiment_by_name(folder.name):
            experiment = client.get_experiment_by_name(folder.name).experiment_id
            query = "tags.`searchae.trial` != '' and metrics.psnr_db > 0"
            begun = client.search_runs([experiment], query)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert begun, "nothing was tracked before the search was killed"
    done = searchae(*words, timeout=280, **environment)
    assert done.returncode == 0, done.stderr
    _, trials, runs = runs_of(client, folder.name)
    assert sorted(trials) == [0, 1, 2, 3]
    assert len(runs) == 5
    check_curves(client, trials, folder)
    for run in trials.values():
        losses = curve_of(client, run, "train_mse")
        assert [step for step, _ in losses] == list(range(1, 61))


@pytest.mark.fleet
def test_trials_of_an_outage_are_sent_by_the_same_command(
    searchae: RunCommand, folder: Path, environment: dict[str, str], client: Any
) -> None:
    words = (*TUNE, "--trials", "2", "--track", "mlflow")
    port = free_port()
    gone = {**environment, "MLFLOW_TRACKING_URI": f"http://ann:s3cret@127.0.0.1:{port}"}
    done = searchae(*words, **gone)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["running"] == 0
    lines = [line for line in done.stderr.splitlines() if "--track" in line]
    assert len(lines) == 2, done.stderr
    assert f"not sent to http://***@127.0.0.1:{port} (MlflowException" in lines[0]
    assert "check MLFLOW_TRACKING_URI; the work goes on" in lines[0]
    assert "2 trials of 2 not known to be sent; the same command again sends" in lines[1]
    assert "s3cret" not in done.stdout + done.stderr
    done = searchae(*words, **environment)  # nothing is left to train
    assert done.returncode == 0, done.stderr
    assert "--track" not in done.stderr
    _, trials, _ = runs_of(client, folder.name)
    check_curves(client, trials, folder)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://127.0.0.1:5000", "to http://127.0.0.1:5000 (OSError): check MLFLOW_TRACKING_URI;"),
        (
            "https://ann:a/b?c#d@e@mlflow.example.org/x?token=f",
            "to https://***@mlflow.example.org/x (",
        ),
        ("ann:s3cret@host:5000", "to ***@host:5000 ("),
        ("databricks", "to databricks ("),
    ],
)
def test_the_warning_of_an_outage_names_the_address_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, address: str, shown: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert shown in outage_text(MlflowTracker(), OSError(f"no answer of {address}"))


@pytest.mark.fleet
def test_a_server_that_never_answers_keeps_nothing_waiting(
    command_line: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="install mlflow-skinny")
    monkeypatch.setattr("searchae.tuning.trackers.CLOSE_S", 1.0)
    with socket.socket() as silent:  # takes connections, and answers none
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # A single request would take longer than all that the search may take.
        settings = {"MLFLOW_TRACKING_URI": url, "MLFLOW_HTTP_REQUEST_TIMEOUT": "280"}
        began = time.monotonic()
        done = command_line(*TUNE, "--trials", "3", "--track", "mlflow", **settings)
        took_s = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["complete"] == 3
    assert "not known to be sent" in done.stderr
    assert took_s < 200


@pytest.mark.fleet
def test_a_bundle_is_registered_as_a_model_once(
    command_line: RunCommand,
    folder: Path,
    environment: dict[str, str],
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuned = command_line(*TUNE, "--trials", "2", "--track", "mlflow", **environment)
    assert tuned.returncode == 0, tuned.stderr
    words = ("train", "-s", "tiny", "--epochs", "2", "--out", "best", "--device", "cpu")
    for _ in range(2):
        done = command_line(*words, "--track", "mlflow", **environment)
        assert done.returncode == 0, done.stderr
        assert "the bundle is version " in done.stderr
    experiment = client.get_experiment_by_name(folder.name).experiment_id
    (run,) = client.search_runs([experiment], "tags.`searchae.bundle` != ''")
    parent, _, _ = runs_of(client, folder.name)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    (version,) = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert version.name == "tiny"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
    import mlflow

    fetched = mlflow.artifacts.download_artifacts(f"models:/tiny/{version.version}")
    assert searchae.load(fetched).metrics["psnr_db"] == pytest.approx(
        run.data.metrics["test_psnr_db"]
    )


def offline_runs(folder: Path) -> dict[str, list[Any]]:
    """The records of each offline run of W&B's, by its id."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[Any]] = {}
    for file in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        records = [wandb_internal_pb2.Record.FromString(r) for r in logged(file.read_bytes())]
        started = next(r.run for r in records if r.HasField("run"))
        assert started.run_id not in found, "a run was written twice"
        found[started.run_id] = records
    return found


def logged(content: bytes) -> Iterator[bytes]:
    """The records of a log of LevelDB's, which W&B's files are, after a head of seven bytes."""
    block, head, at, record = 2**15, 7, 7, b""
    while at + head <= len(content):
        if block - at % block < head:  # padding
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<4xHB", content, at)
        record += content[at + head : at + head + length]
        at += head + length
        if kind in (1, 4):  # the whole record, or its last part
            yield record
            record = b""


def psnrs(records: list[Any]) -> list[float]:
    """The curve that a run's records hold."""
    items = (i for r in records if r.HasField("history") for i in r.history.item)
    return [
        json.loads(i.value_json) for i in items if (i.key or "".join(i.nested_key)) == "psnr_db"
    ]


@pytest.mark.fleet
def test_wandb_writes_a_run_a_trial_offline_and_none_twice(
    command_line: RunCommand, folder: Path
) -> None:
    pytest.importorskip("wandb", reason="install wandb")
    settings = {"WANDB_MODE": "offline", "WANDB_DIR": str(folder)}
    words = (*TUNE, "--track", "wandb")
    done = command_line(*words, "--trials", "2", **settings)
    assert done.returncode == 0, done.stderr
    done = command_line(*words, "--trials", "2", **settings)  # there is no news
    assert done.returncode == 0, done.stderr
    assert "--track" not in done.stderr
    runs = offline_runs(folder)
    rows = stored_rows(folder)
    assert len(runs) == 3, "two trials and the study"
    for number, row in rows.items():
        (records,) = [found for run_id, found in runs.items() if run_id.endswith(f"-{number}")]
        assert len(psnrs(records)) == int(row["epochs"])
        (run, *_) = [r.run for r in records if r.HasField("run")]
        assert run.run_group == "tiny"
        config = {c.key: json.loads(c.value_json) for c in run.config.update}
        assert config["learning_rate"] == pytest.approx(row["params_learning_rate"])


@pytest.mark.parametrize(
    ("name", "hidden", "said"),
    [
        ("mlflow", "mlflow", "needs the package mlflow: pip install '.[mlflow]'"),
        ("wandb", "wandb", "needs the package wandb: pip install '.[wandb]'"),
        ("mlfow", "", "did you mean 'mlflow'?"),
    ],
)
def test_without_the_library_it_says_what_to_install(
    command_line: RunCommand, monkeypatch: pytest.MonkeyPatch, name: str, hidden: str, said: str
) -> None:
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    done = command_line("tune", "-s", "tiny", "--track", name)
    assert done.returncode == 2
    assert f"--track {name}: {said}" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"), [("mlflow", "set MLFLOW_TRACKING_URI"), ("wandb", "set WANDB_API_KEY")]
)
def test_without_an_address_or_a_login_it_says_what_to_set(
    command_line: RunCommand, folder: Path, name: str, said: str
) -> None:
    pytest.importorskip(name)
    settings = {"MLFLOW_TRACKING_URI": "", "WANDB_API_KEY": "", "WANDB_MODE": "online"}
    settings["NETRC"] = str(folder / "no-netrc")
    done = command_line("tune", "-s", "tiny", "--track", name, **settings)
    assert done.returncode == 2
    assert said in done.stderr
