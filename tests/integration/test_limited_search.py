"""``search.max_parameters`` in whole searches: refused nets cost nothing of the budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from searchae.config import params_of_trial
from searchae.models import model_size
from searchae.storage.connection import connect
from searchae.study.coordination import Coordinator
from searchae.study.stored_study import StoredStudy, load_study
from searchae.study.summary import summarize
from tests.conftest import RunCommand
from tests.stored_trials import trials

SHAPE = (3, 16, 16)
LIMIT = 8000
SPACE = (
    *("--set", "model.latent_dim={ low = 4, high = 64 }"),
    *("--set", "model.channels={ choices = [[4, 8], [8, 16], [16, 32]] }"),
    *("--set", "train.epochs=2"),
)
LIMITED = (*SPACE, "--set", f"search.max_parameters={LIMIT}")


def sizes(stored: StoredStudy) -> list[int]:
    return [
        model_size(params_of_trial(stored.spec, t.params).model, SHAPE).parameters
        for t in stored.study.get_trials(deepcopy=False)
    ]


@pytest.mark.parametrize("optuna", ["auto", "public"])
def test_the_budget_is_run_with_nets_within_the_limit_and_the_refused_are_counted(
    searchae: RunCommand, database: str, optuna: str
) -> None:
    words = ("tune", "-s", "tiny", *LIMITED, "--workers", "2", "--json")
    where = {"SEARCHAE_STORAGE": database, "SEARCHAE_OPTUNA": optuna}
    first = searchae(*words, "--trials", "5", **where)
    assert first.returncode == 0, first.stderr
    assert f"search.max_parameters: {LIMIT:,} refuses 8 of 12 nets" in first.stderr
    done = searchae(*words, "--trials", "9", **where)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"]["complete"] + found["trials"]["pruned"] == 9
    assert found["trials"]["failed"] == 0
    assert len(trials(database)) == 9, "a refused net takes no number"
    stored = load_study(connect(database), "tiny")
    assert max(sizes(stored)) <= LIMIT
    refused = [t.user_attrs.get("searchae:refused", 0) for t in trials(database)]
    assert found["refused"] == sum(refused) > 0
    shown = searchae("status", "-s", "tiny", **where)
    assert f"refused    {sum(refused)} net" in shown.stdout
    stored.storage.engine.dispose()


def test_a_dry_run_begins_with_what_is_allowed(searchae: RunCommand) -> None:
    shown = searchae("tune", "-s", "tiny", *LIMITED, "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    plan = json.loads(shown.stdout)
    assert plan["parameters"][1] <= LIMIT
    assert plan["begins"].keys() == {"optimizer", "learning_rate", "regularizer"}, "a smaller net"
    none = searchae("tune", "-s", "tiny", *SPACE, "--set", "search.max_parameters=50", "--dry-run")
    assert none.returncode == 2
    assert "search.max_parameters: 50 refuses every net of this study" in none.stderr


def test_a_warm_start_leaves_larger_nets_behind(searchae: RunCommand, folder: Path) -> None:
    url = f"sqlite:///{folder / 'searchae.db'}"
    words = ("tune", "-s", "tiny", "--workers", "1", "--set", "search.sampler=random")
    old = searchae(*words, *SPACE, "--name", "old", "--trials", "8")
    assert old.returncode == 0, old.stderr
    new = searchae(*words, *LIMITED, "--name", "new", "--warm-start", "old", "--trials", "1")
    assert new.returncode == 0, new.stderr
    storage = connect(url)
    small = sum(size <= LIMIT for size in sizes(load_study(storage, "old")))
    stored = load_study(storage, "new")
    assert 0 < small < 8
    assert len(sizes(stored)) == small + 1
    assert max(sizes(stored)) <= LIMIT
    assert summarize(stored, Coordinator(stored)).counts.finished == 1
    storage.engine.dispose()
