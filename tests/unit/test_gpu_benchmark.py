"""What ``benchmarks.gpu`` keeps of its measurements, what it leaves to a later call, its tables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu, gpu_plan, gpu_workers
from benchmarks.gpu_records import append_record, finished_cases, markdown, read_records
from benchmarks.gpu_search import junit_figures, search_figures, workers_of

MACHINE = {"device": "NVIDIA H200", "torch": "torch 2.11.0", "cuda": ""}


def record(part: str, case: str, **figures: Any) -> dict[str, Any]:
    return {"part": part, "case": case, "figures": figures, "machine": MACHINE, "commit": "abc"}


def error(part: str, case: str, text: str) -> dict[str, Any]:
    return {"part": part, "case": case, "error": text, "machine": MACHINE, "commit": "abc"}


def rows(text: str, part: str) -> list[list[str]]:
    """The cells of a part's table, its heads first."""
    (section,) = (s for s in text.split("### ")[1:] if s.startswith(f"{part}\n"))
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line
    ]


def test_a_line_that_was_cut_off_loses_no_other(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    append_record(path, record("limits", "copy", rate=4300.0))
    with path.open("a") as file:
        file.write('{"part": "limits", "case": "mat')
    append_record(path, record("steps", "dense/eager fp32", images_per_s=9.0))
    assert [r["case"] for r in read_records(path)] == ["copy", "dense/eager fp32"]


def test_what_failed_or_has_something_left_is_measured_again() -> None:
    records = [
        record("workers", "svhn/alone/1", images_per_s=9.0),
        error("workers", "svhn/alone/1", "a later fault"),
        error("workers", "svhn/alone/2", "died"),
        record("workers", "svhn/MPS/1", note="no nvidia-cuda-mps-control"),
        record("search", "svhn", ended=150, trials=200, left=50),
    ]
    assert finished_cases(records, "workers") == {"svhn/alone/1", "svhn/MPS/1"}
    assert finished_cases(records, "search") == set()
    assert finished_cases([*records, record("search", "svhn", left=0)], "search") == {"svhn"}


def test_only_cases_that_are_left_get_a_process() -> None:
    everything = gpu_plan.jobs("workers")
    assert [len(job.cases) for job in everything] == [4, 4, 4, 4]
    done = {*everything[0].cases, *everything[1].cases[:3]}
    assert gpu_plan.jobs("workers", done=done)[0].cases == everything[1].cases[3:]
    tests = [job.cases for job in gpu_plan.jobs("tests")]
    assert ("integration/test_gpu_training.py",) in tests
    every_net = {job.cases[0].partition("/")[0] for job in gpu_plan.jobs("steps")}
    assert every_net == set(gpu_plan.NETS)


def test_parts_and_their_times_come_from_the_command_line() -> None:
    assert gpu.wanted_parts(["steps=90", "limits"]) == {"steps": 90.0, "limits": 40.0}
    assert list(gpu.wanted_parts([])) == list(gpu_plan.LIMITS_S)
    with pytest.raises(ValueError, match="no part 'step': use tests, limits"):
        gpu.wanted_parts(["step"])


def test_steps_are_compared_with_the_loop_and_the_limits() -> None:
    work = {"flop": 1e9, "bytes": 1e6, "batch": 128}
    text = markdown(
        [
            record("limits", "copy", rate=4000.0),
            record("limits", "matmul tf32", rate=400.0),
            record("steps", "dense/DataLoader", images_per_s=1e4, ms_a_step=12.8, **work),
            record("steps", "dense/recorded fp32", images_per_s=2e5, ms_a_step=0.64, **work),
            error("steps", "dense/eager fp32", "Traceback ...\nRuntimeError: a fault"),
        ]
    )
    heads, loop, recorded = rows(text, "steps")
    found = dict(zip(heads, recorded, strict=True))
    assert found["images/s"] == "200,000"
    assert found["times DataLoader"] == "20.0"
    assert found["of copy"] == "5.0 %", "2e5 images of 1 MB, of 4000 GB/s"
    assert found["of matmul (TF32, bf16)"] == "50.0 %"
    assert loop[heads.index("times DataLoader")] == "1.0"
    assert "- dense/eager fp32: failed: RuntimeError: a fault" in text
    assert "Measured on NVIDIA H200, torch 2.11.0, at abc." in text


def test_numbers_at_a_time_become_columns() -> None:
    text = markdown(
        [
            record("evaluation", "dense/250", images_per_s=1e5, difference_db=0.0),
            record("evaluation", "dense/16000", images_per_s=9e5, difference_db=-2e-6),
            record("workers", "svhn/alone/1", images_per_s=3e5),
            record("workers", "svhn/MPS/1", note="no nvidia-cuda-mps-control"),
        ]
    )
    assert rows(text, "evaluation") == [
        ["net, images/s", "250 at a time", "16,000 at a time", "largest difference of the PSNR"],
        ["dense", "100,000", "900,000", "2.0e-06 dB"],
    ]
    assert rows(text, "workers")[1:] == [
        ["svhn/alone", "300,000"],
        ["svhn/MPS", "no nvidia-cuda-mps-control"],
    ]


def test_a_search_is_told_by_what_tune_prints() -> None:
    summary = {
        "trials": {"complete": 40, "pruned": 100, "failed": 1},
        "best": {"psnr_db": 24.5},
        "epochs": {"run": 900, "full": 20_000},
        "wall_s": 300.0,
    }
    figures = search_figures(summary, {"trials": 200, "images": 1000})
    assert (figures["ended"], figures["left"]) == (140, 60)
    assert figures["images_per_s"] == 0.9 * 1000 * 900 / 300
    heads, row = rows(markdown([record("search", "svhn", **figures)]), "search")
    assert dict(zip(heads, row, strict=True))["trials"] == "140 of 200"
    assert workers_of("workers a GPU: 2\n...\nworkers a GPU: 8\n") == "8"


def test_a_junit_report_is_counted() -> None:
    report = (
        '<testsuites><testsuite tests="4" failures="1" errors="0" skipped="2" time="1.5">'
        '<testcase name="good"/><testcase name="bad"><failure message="no"/></testcase>'
        '<testcase name="a"><skipped/></testcase><testcase name="b"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    figures = junit_figures(report)
    heads, row = rows(markdown([record("tests", "unit/test_x.py", **figures)]), "tests")
    assert dict(zip(heads, row, strict=True))["which failed"] == "bad"
    assert (figures["passed"], figures["failed"], figures["skipped"]) == (1, 1, 2)
    assert figures["failures"] == ["bad"]


@pytest.mark.parametrize(
    ("then", "limit_s", "failure"),
    [
        ("raise SystemExit(3)", 60.0, "exit code 3: see log"),
        ("time.sleep(60)", 1.0, "ended at its time limit of 1 s"),
    ],
)
def test_a_process_that_fails_or_takes_too_long_is_told_of(
    then: str, limit_s: float, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    line = json.dumps({"case": "first", "figures": {}})
    (package / "gpu_child.py").write_text(f"import time\nprint({line!r}, flush=True)\n{then}\n")
    found: list[dict[str, Any]] = []
    monkeypatch.chdir(tmp_path)
    told = gpu.run_job(
        "any:thing",
        {},
        environment={**os.environ, "PYTHONPATH": str(tmp_path)},
        limit_s=limit_s,
        log=tmp_path / "log",
        keep=found.append,
    )
    assert told == failure
    if limit_s > 1:
        assert found == [{"case": "first", "figures": {}}], "what it had measured is kept"


def test_mps_ends_with_what_it_was_started_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in the place of NVIDIA's writes down what it is told."""
    control, told = tmp_path / gpu_workers.CONTROL, tmp_path / "told"
    control.write_text(
        f'#!/bin/sh\n[ -d "$CUDA_MPS_PIPE_DIRECTORY" ] || exit 1\n'
        f'if [ "$1" = -d ]; then echo started; else cat; fi >> {told}\n'
    )
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def fail_within() -> None:
        with gpu_workers.mps() as servers:
            servers()
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        fail_within()
    assert told.read_text().split() == ["started", "get_server_list", "quit"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    append_record(path, record("limits", "copy", rate=1.0))
    assert json.loads(path.read_text())["figures"] == {"rate": 1.0}
