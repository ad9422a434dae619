"""Checkpoints of a trial, and training a trial from its last checkpoint."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from searchae.config.schema import ModelParams, TrainParams, TrialParams
from searchae.errors import LeaseLostError
from searchae.training import checkpoint, trial_checkpoints
from searchae.training.checkpoint import CheckpointError
from searchae.training.epoch import EpochResult
from searchae.training.trainer import Interrupted
from searchae.training.trial_checkpoints import Checkpoints, PrunedError, remove_old_checkpoints
from searchae.worker.objective import TrialHooks, TrialJob, run_trial

CPU = torch.device("cpu")
EPOCHS = 4


def state(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "weights": torch.full((3,), float(epoch))}


def kept(checkpoints: Checkpoints) -> list[int]:
    """Returns the epochs of the checkpoints on disk, the newest first."""
    return [epoch for epoch, _ in checkpoints._found()]


def folder_of(checkpoints: Checkpoints) -> Path:
    assert isinstance(checkpoints.folder, Path)
    return checkpoints.folder


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "made" / "checkpoints", 7)


# -- checkpoints


def test_without_any_there_is_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.latest() is None
    checkpoints.clear()
    assert not folder_of(checkpoints).exists()


def test_the_newest_is_found_and_two_are_kept(checkpoints: Checkpoints) -> None:
    for epoch in (1, 2, 10, 9):
        checkpoints.save(state(epoch), epoch)
    found = checkpoints.latest()
    assert found is not None
    assert found["epoch"] == 10
    assert torch.equal(found["weights"], torch.full((3,), 10.0))
    assert kept(checkpoints) == [10, 9]
    assert len(list(folder_of(checkpoints).iterdir())) == 2, "no draft is left"


def test_a_torn_file_is_passed_over(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(state(1), 1)
    checkpoints.save(state(2), 2)
    (newest,) = folder_of(checkpoints).glob("*-000002-*.pt")
    newest.write_bytes(newest.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        found = checkpoints.latest()
    assert found is not None
    assert found["epoch"] == 1
    assert "trial 7: a checkpoint is passed over" in caplog.text


def test_a_changed_byte_is_noticed(checkpoints: Checkpoints) -> None:
    checkpoints.save(state(1), 1)
    (file,) = folder_of(checkpoints).iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert checkpoints.latest() is None


def test_two_workers_at_one_trial_overwrite_nothing_of_each_other(
    checkpoints: Checkpoints,
) -> None:
    """One was thought dead and is still training; their states of one epoch may differ."""
    other = {"epoch": 3, "weights": torch.zeros(3)}
    checkpoints.save(state(3), 3)
    checkpoints.save(other, 3)
    assert kept(checkpoints) == [3, 3]
    found = checkpoints.latest()
    assert found is not None
    assert found["epoch"] == 3


def test_trials_do_not_see_each_other_s(checkpoints: Checkpoints) -> None:
    neighbour = Checkpoints(folder_of(checkpoints), 70)
    checkpoints.save(state(1), 1)
    neighbour.save(state(2), 2)
    checkpoints.clear()
    assert checkpoints.latest() is None
    found = neighbour.latest()
    assert found is not None
    assert found["epoch"] == 2


def test_clearing_removes_drafts_of_dead_workers_too(checkpoints: Checkpoints) -> None:
    checkpoints.save(state(1), 1)
    draft = folder_of(checkpoints) / "000007-000002.elsewhere-12.draft"
    draft.write_bytes(b"half a file")
    assert kept(checkpoints) == [1], "a draft is not a checkpoint"
    checkpoints.clear()
    assert list(folder_of(checkpoints).iterdir()) == []


# -- one trial


class FakeTrial:
    """Remembers reports; prunes after the given epoch."""

    def __init__(self, prune_after: int | None = None) -> None:
        self.reports: dict[int, float] = {}
        self.asked = 0
        self._prune_after = prune_after

    def report(self, value: float, step: int) -> None:
        assert step not in self.reports, f"epoch {step} was reported twice"
        self.reports[step] = value

    def should_prune(self) -> bool:
        self.asked += 1
        return max(self.reports, default=0) == self._prune_after

    def should_pause(self) -> bool:
        return False


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    ramps = torch.rand(40, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    smooth = (255 * ramps * torch.linspace(0, 1, 8)).expand(40, 1, 8, 8).to(torch.uint8)
    return smooth[:32].contiguous(), smooth[32:].contiguous()


def params(**train: Any) -> TrialParams:
    model = ModelParams(kind="dense", hidden=(8,), latent_dim=4)
    return TrialParams(model, TrainParams(epochs=EPOCHS, batch_size=8, **train))


Run = Callable[..., float]


@pytest.fixture
def run(images: tuple[Tensor, Tensor], checkpoints: Checkpoints) -> Run:
    def once(
        trial: FakeTrial,
        *,
        trial_params: TrialParams | None = None,
        reported: Collection[int] = (),
        on_epoch: Callable[[EpochResult], None] = lambda _result: None,
        leave: Callable[[], bool] = lambda: False,
        stop: Callable[[], bool] = lambda: False,
        thread: ThreadPoolExecutor | None = None,
    ) -> float:
        job = TrialJob(
            trial=trial,
            params=trial_params or params(),
            images=images,
            seed=5,
            device=CPU,
            checkpoints=checkpoints,
            reported=reported,
            writer=thread,
        )
        return run_trial(job, TrialHooks(on_result=on_epoch, should_leave=leave, should_stop=stop))

    return once


class KilledError(Exception):
    """Simulates the death of the process."""


def killed_after(epoch: int) -> Callable[[EpochResult], None]:
    def on_epoch(result: EpochResult) -> None:
        if result.epoch == epoch:
            raise KilledError

    return on_epoch


def test_reports_every_epoch_and_returns_the_last(run: Run) -> None:
    trial, seen = FakeTrial(), []
    value = run(trial, on_epoch=lambda result: seen.append(result.epoch))
    assert list(trial.reports) == seen == [1, 2, 3, 4]
    assert value == trial.reports[4]
    assert trial.asked == EPOCHS - 1, "not after the last epoch"


def test_a_killed_trial_goes_on_and_ends_as_if_it_had_not_been(
    run: Run, checkpoints: Checkpoints
) -> None:
    whole = FakeTrial()
    expected = run(whole)
    checkpoints.clear()
    first, second, trained = FakeTrial(), FakeTrial(), []
    with pytest.raises(KilledError):
        run(first, on_epoch=killed_after(2))
    value = run(
        second,
        reported=first.reports,
        on_epoch=lambda result: trained.append(result.epoch),
    )
    assert trained == [3, 4]
    assert value == expected
    assert {**first.reports, **second.reports} == whole.reports


def test_only_missing_epochs_are_reported(run: Run) -> None:
    """Killed between writing a checkpoint and reporting it."""
    with pytest.raises(KilledError):
        run(FakeTrial(), on_epoch=killed_after(3))
    trial = FakeTrial()
    run(trial, reported={1, 2})
    assert sorted(trial.reports) == [3, 4]


def test_epochs_trained_again_are_not_reported_again(run: Run, checkpoints: Checkpoints) -> None:
    """The reports are in the database, the checkpoints are lost."""
    with pytest.raises(KilledError):
        run(FakeTrial(), on_epoch=killed_after(3))
    checkpoints.clear()
    trial, trained = FakeTrial(), []
    run(trial, reported={1, 2, 3}, on_epoch=lambda result: trained.append(result.epoch))
    assert trained == [1, 2, 3, 4]
    assert sorted(trial.reports) == [4]


def test_killed_after_its_last_epoch_it_only_gives_its_result(run: Run) -> None:
    first = FakeTrial()
    with pytest.raises(KilledError):
        run(first, on_epoch=killed_after(EPOCHS))
    again = FakeTrial()
    value = run(again, reported=first.reports, on_epoch=killed_after(EPOCHS))
    assert value == first.reports[EPOCHS]
    assert again.reports == {}


def test_a_pruned_trial_stops_there_and_its_reports_stand(run: Run) -> None:
    trial = FakeTrial(prune_after=2)
    with pytest.raises(PrunedError):
        run(trial)
    assert sorted(trial.reports) == [1, 2]


def test_asked_to_leave_it_keeps_the_epoch_it_has_ended(run: Run, checkpoints: Checkpoints) -> None:
    trial = FakeTrial()
    with pytest.raises(Interrupted):
        run(trial, leave=lambda: True)
    assert sorted(trial.reports) == [1]
    latest = checkpoints.latest()
    assert latest is not None
    assert len(latest["history"]) == 1


def test_the_training_does_not_wait_for_the_disk(
    run: Run, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint is written only once the second epoch is over."""
    second, save = threading.Event(), Checkpoints.save

    def slow(self: Checkpoints, state: dict[str, Any], epoch: int) -> None:
        assert second.wait(30)
        save(self, state, epoch)

    def stop() -> bool:
        if max(trial.reports, default=0) == 1:  # a step of the second epoch
            second.set()
        return False

    trial = FakeTrial()
    monkeypatch.setattr(Checkpoints, "save", slow)
    run(trial, stop=stop)
    assert kept(checkpoints) == [4, 3]


def test_a_trial_that_has_ended_does_not_wait_for_the_disk(
    run: Run, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing the checkpoints, submitted to the same thread, comes after writing them."""
    begun, ended, save = threading.Event(), threading.Event(), Checkpoints.save
    in_time: list[bool] = []

    def slow(self: Checkpoints, state: dict[str, Any], epoch: int) -> None:
        if epoch == EPOCHS:
            begun.set()
            in_time.append(ended.wait(20))
        save(self, state, epoch)

    def on_epoch(result: EpochResult) -> None:
        assert result.epoch < EPOCHS or begun.wait(20)

    monkeypatch.setattr(Checkpoints, "save", slow)
    with ThreadPoolExecutor(1) as thread:
        run(FakeTrial(), on_epoch=on_epoch, thread=thread)
        ended.set()
        thread.submit(checkpoints.clear)
    assert in_time == [True]
    assert kept(checkpoints) == []


def test_what_is_not_yet_written_of_an_ended_trial_never_is(
    run: Run, checkpoints: Checkpoints
) -> None:
    """Otherwise a slow disk would have more and more to write that is never read."""
    free = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(free.wait, 20)
        with pytest.raises(PrunedError):
            run(FakeTrial(prune_after=1), thread=thread)
        free.set()
    assert kept(checkpoints) == []


@pytest.mark.parametrize("prune_after", [2, None])
def test_the_last_epoch_of_a_trial_that_has_ended_is_never_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, prune_after: int | None
) -> None:
    save, written = Checkpoints.save, []

    def noted(self: Checkpoints, state: dict[str, Any], epoch: int) -> None:
        written.append(epoch)
        save(self, state, epoch)

    monkeypatch.setattr(Checkpoints, "save", noted)
    ended = pytest.raises(PrunedError) if prune_after else contextlib.nullcontext()
    with ThreadPoolExecutor(1) as thread, ended:
        run(FakeTrial(prune_after), thread=thread)
    assert written == list(range(1, prune_after or EPOCHS))


def test_a_report_that_waits_for_the_database_holds_up_no_checkpoint(
    run: Run, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waiting(FakeTrial):
        def report(self, value: float, step: int) -> None:
            until = time.monotonic() + 20
            while kept(checkpoints)[:1] != [step]:
                assert time.monotonic() < until, "not written while the database is away"
                time.sleep(0.05)
            super().report(value, step)

    monkeypatch.setattr(trial_checkpoints, "LONGEST_DELAY_S", 0.05)
    trial = Waiting()
    with ThreadPoolExecutor(1) as thread:
        run(trial, thread=thread)
    assert sorted(trial.reports) == [1, 2, 3, 4]


def test_what_others_go_on_with_is_waited_for(
    run: Run, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def slow(self: Checkpoints, state: dict[str, Any], epoch: int) -> None:
        time.sleep(0.3)
        save(self, state, epoch)

    monkeypatch.setattr(Checkpoints, "save", slow)
    trial = FakeTrial()
    with ThreadPoolExecutor(1) as thread:
        with pytest.raises(Interrupted):
            run(trial, stop=lambda: bool(trial.reports), thread=thread)
        assert kept(checkpoints) == [1]


def test_a_last_checkpoint_that_fails_is_said_and_costs_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, save = threading.Event(), Checkpoints.save

    def failing(self: Checkpoints, state: dict[str, Any], epoch: int) -> None:
        if epoch == EPOCHS:
            begun.set()
            raise OSError("no space left")
        save(self, state, epoch)

    def on_epoch(result: EpochResult) -> None:
        assert result.epoch < EPOCHS or begun.wait(20)

    monkeypatch.setattr(Checkpoints, "save", failing)
    trial = FakeTrial()
    with ThreadPoolExecutor(1) as thread:
        assert run(trial, on_epoch=on_epoch, thread=thread) == trial.reports[EPOCHS]
    assert "trial 7: no checkpoint: no space left" in caplog.text


def test_a_checkpoint_that_could_not_be_written_ends_the_training(
    run: Run, checkpoints: Checkpoints
) -> None:
    folder_of(checkpoints).parent.mkdir()
    folder_of(checkpoints).write_text("a file where the folder should be")
    trial = FakeTrial()
    with pytest.raises(CheckpointError, match="a link or no folder"):
        run(trial)
    assert len(trial.reports) < EPOCHS


def test_asked_to_leave_after_its_last_epoch_it_gives_its_result(run: Run) -> None:
    trial = FakeTrial()
    assert run(trial, leave=lambda: len(trial.reports) == EPOCHS) == trial.reports[EPOCHS]


def test_sweeping_leaves_only_the_checkpoints_of_trials_that_go_on(tmp_path: Path) -> None:
    ended = {1, 3}
    names = [f"{n:06d}-000003-{'a' * 64}.pt" for n in range(6)]
    for name in (*names, "000003-000004.host-7.draft", ".000001-000001.tmp", "notes.txt"):
        (tmp_path / name).touch()
    assert remove_old_checkpoints(tmp_path, ended) == 4
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"notes.txt", *(names[n] for n in (0, 2, 4, 5))}
    assert remove_old_checkpoints(tmp_path / "missing", ended) == 0


def test_a_lost_lease_is_noticed_before_the_pruner_is_asked(run: Run) -> None:
    trial = FakeTrial(prune_after=1)

    def lost(_result: EpochResult) -> None:
        raise LeaseLostError

    with pytest.raises(LeaseLostError):
        run(trial, on_epoch=lost)
    assert trial.asked == 0


def test_stops_within_an_epoch_and_keeps_the_ones_before(
    run: Run, checkpoints: Checkpoints
) -> None:
    trial = FakeTrial()
    with pytest.raises(Interrupted):
        run(trial, stop=lambda: bool(trial.reports))
    assert sorted(trial.reports) == [1]
    assert kept(checkpoints) == [1]


def test_a_checkpoint_of_other_parameters_is_as_good_as_none(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KilledError):
        run(FakeTrial(), on_epoch=killed_after(2))
    trained: list[int] = []
    with caplog.at_level(logging.WARNING):
        run(
            FakeTrial(),
            trial_params=params(learning_rate=0.02),
            on_epoch=lambda result: trained.append(result.epoch),
        )
    assert trained == [1, 2, 3, 4]
    assert "trial 7 starts over" in caplog.text


def test_a_plateau_ends_a_trial_early(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchae.training.trainer.LEARNED_DB", -math.inf)
    trial = FakeTrial()
    value = run(trial, trial_params=params(patience=1, min_delta_db=1000.0))
    assert 1 < len(trial.reports) < EPOCHS
    assert value == trial.reports[max(trial.reports)]


def test_a_file_s_name_says_trial_epoch_and_content(checkpoints: Checkpoints) -> None:
    checkpoints.save(state(3), 3)
    (file,) = folder_of(checkpoints).iterdir()
    number, epoch, _ = file.stem.split("-")
    assert (int(number), int(epoch)) == (7, 3)
    assert checkpoint.load_checkpoint(file)["epoch"] == 3


def in_the_way(kind: str, path: Path, elsewhere: Path) -> None:
    """Puts something else in the place of a checkpoint."""
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        elsewhere.write_bytes(content)
        path.symlink_to(elsewhere)
    elif kind == "endless link":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["link", "endless link", "pipe", "folder"])
def test_what_is_no_file_is_passed_over(
    checkpoints: Checkpoints, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints.save(state(1), 1)
    checkpoints.save(state(2), 2)
    newest = max(folder_of(checkpoints).iterdir())
    in_the_way(kind, newest, tmp_path / "elsewhere")
    found = checkpoints.latest()
    assert found is not None
    assert found["epoch"] == 1, "the one before it"
    assert "trial 7: a checkpoint is passed over" in caplog.text
    checkpoints.save(state(3), 3)
    checkpoints.clear()
    assert [p for p in folder_of(checkpoints).iterdir() if not p.is_dir()] == []
    assert kind != "link" or (tmp_path / "elsewhere").exists(), "only the link is removed"


@pytest.mark.parametrize("level", [0, 1])
def test_a_link_to_another_folder_is_not_followed(
    checkpoints: Checkpoints, tmp_path: Path, level: int
) -> None:
    """Whoever can write in the artifact folder must not lead removals and writes elsewhere."""
    victim = tmp_path / "victim"
    (victim / "checkpoints").mkdir(parents=True)
    holiday = (victim / "checkpoints" if level else victim) / "000007-holiday.jpg"
    holiday.touch()
    link = folder_of(checkpoints).parent if level else folder_of(checkpoints)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim)
    assert remove_old_checkpoints(folder_of(checkpoints), {7}) == 0
    assert checkpoints.latest() is None
    with pytest.raises(CheckpointError, match="a link or no folder, which searchae does not put"):
        checkpoints.save(state(1), 1)
    with pytest.raises(OSError, match="a link or no folder"):
        checkpoints.clear()
    assert list(victim.rglob("*.*")) == [holiday]


def test_planted_names_do_not_push_out_the_real_ones(checkpoints: Checkpoints) -> None:
    checkpoints.save(state(1), 1)
    for digit in "abc":
        (folder_of(checkpoints) / f"000007-999999-{digit * 64}.pt").touch()
    checkpoints.save(state(2), 2)
    found = checkpoints.latest()
    assert found is not None
    assert found["epoch"] == 2


Change = Callable[[dict[str, Any]], object]
MALFORMED: dict[str, Change] = {
    "no format": lambda s: s.pop("format"),
    "no model": lambda s: s.pop("model"),
    "no seed": lambda s: s.pop("seed"),
    "no weights": lambda s: s["model"].clear(),
    "weights of another shape": lambda s: s["model"].update(
        {name: torch.zeros(3) for name in list(s["model"])[:1]}
    ),
    "weights that are NaN": lambda s: [w.fill_(math.nan) for w in s["model"].values()],
    "an optimizer's text": lambda s: s.update(optimizer="junk"),
    "an optimizer's other state": lambda s: s.update(optimizer={"a": 1}),
    "no optimizer": lambda s: s.update(optimizer=None),
    "a history of text": lambda s: s.update(history="abc"),
    "another result": lambda s: s["history"].append({"x": 1}),
    "an epoch twice": lambda s: s.update(history=s["history"] * 2),
    "a PSNR of text": lambda s: s["history"][0].update(psnr_db="x"),
    "a PSNR that is NaN": lambda s: s["history"][-1].update(psnr_db=math.nan),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_state_is_as_good_as_none(
    run: Run, checkpoints: Checkpoints, change: Change, caplog: pytest.LogCaptureFixture
) -> None:
    """Under a right seal: the training starts over and comes to the same result."""
    expected = FakeTrial()
    run(expected)
    checkpoints.clear()
    with pytest.raises(KilledError):
        run(FakeTrial(), on_epoch=killed_after(2))
    malformed = checkpoints.latest()
    assert malformed is not None
    checkpoints.clear()
    change(malformed)
    checkpoints.save(malformed, 2)
    trial = FakeTrial()
    run(trial)
    assert trial.reports == expected.reports
    assert "trial 7 starts over" in caplog.text
