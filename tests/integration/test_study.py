"""Creating, opening and refusing studies, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from threading import Barrier
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from searchae import __version__
from searchae.config import space
from searchae.config.loader import spec_from_document
from searchae.config.study_spec import StudySpec
from searchae.errors import NoStudyError, StorageError, StudyMismatchError
from searchae.search import distributions
from searchae.storage.connection import connect
from searchae.storage.resilient import ResilientStorage
from searchae.study import stored_study
from searchae.study.attributes import (
    BASELINE_DB,
    DATA_HASH,
    IMPORTED,
    OUTCOME,
    SPEC,
    SPLITS,
    VERSIONS,
    WARM_START,
)
from searchae.study.coordination import Coordinator
from searchae.study.overview import study_overviews
from searchae.study.stored_study import (
    StoredStudy,
    check_same_study,
    load_study,
    open_study,
    study_names,
)

HASH = "a" * 64
RATE = {"low": 1e-4, "high": 1e-1, "log": True}
OPTIMIZER = {"choices": ["adam", "sgd"]}


sqlite_only = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""For tests whose result does not depend on the database."""


class CutOffError(Exception):
    """Simulates the death of the process."""


@pytest.fixture
def storage(database: str) -> Iterator[ResilientStorage]:
    storage = connect(database)
    yield storage
    storage.engine.dispose()


def read(search: dict[str, Any] | None = None, **train: Any) -> StudySpec:
    document = {
        "data": {"name": "svhn"},
        "train": {"epochs": 4, "learning_rate": RATE, "optimizer": OPTIMIZER, **train},
        "search": {"sampler": "random", **(search or {})},
    }
    return spec_from_document(document, source="test")


def make(storage: ResilientStorage, name: str = "s", **arguments: Any) -> tuple[StoredStudy, bool]:
    given = {"spec": read(), "data_hash": HASH, "baseline_db": 10.5, **arguments}
    return open_study(storage, name, **given)


def add(stored: StoredStudy, psnr_db: float, **params: Any) -> None:
    """Adds a complete trial."""
    by_name = {p.name: p for p in stored.spec.space}
    attributes = params.pop("user_attrs", {})
    state = params.pop("state", TrialState.COMPLETE)
    stored.study.add_trial(
        create_trial(
            state=state,
            value=psnr_db if state == TrialState.COMPLETE else None,
            params=params,
            distributions={n: distributions.to_distribution(by_name[n]) for n in params},
            intermediate_values={1: psnr_db},
            user_attrs=attributes,
        )
    )


# -- creating and opening


def test_a_study_is_made_once_and_carries_what_a_worker_needs(storage: ResilientStorage) -> None:
    made, created = make(storage)
    again, created_again = make(storage)
    assert (created, created_again) == (True, False)
    assert made.id == again.id
    loaded = load_study(storage, "s")
    assert (loaded.spec, loaded.data_hash, loaded.baseline_db) == (read(), HASH, 10.5)
    assert loaded.name == "s"
    assert loaded.study.direction == StudyDirection.MAXIMIZE
    assert loaded.study.metric_names == ["psnr_db"]
    assert {"python", "torch", "optuna"} <= set(loaded.study.user_attrs[VERSIONS])
    assert study_names(storage) == ["s"]


@sqlite_only
@pytest.mark.parametrize(
    ("key", "value"), [(SPEC, "x"), (SPEC, None), (DATA_HASH, 3), (BASELINE_DB, []), (SPLITS, [1])]
)
def test_a_study_with_a_damaged_attribute_is_refused_and_hides_no_other(
    storage: ResilientStorage, key: str, value: object
) -> None:
    make(storage)
    damaged, _ = make(storage, "damaged")
    storage.set_study_user_attr(damaged.id, key, value)
    with pytest.raises(StorageError, match=f"study 'damaged' is damaged: {key} is "):
        load_study(storage, "damaged")
    of_damaged, of_other = study_overviews(storage)
    assert of_damaged.text.startswith("cannot be read: study 'damaged' is damaged")
    assert of_other.text.startswith("0 of ")


def test_many_that_start_at_once_make_one_study(database: str) -> None:
    count = 4
    gate = Barrier(count)

    def start() -> tuple[int, bool]:
        storage = connect(database)
        gate.wait(timeout=30)
        stored, created = make(storage)
        storage.engine.dispose()
        return stored.id, created

    with ThreadPoolExecutor(count) as pool:
        outcomes = [f.result() for f in [pool.submit(start) for _ in range(count)]]
    assert len({study_id for study_id, _ in outcomes}) == 1
    assert [created for _, created in outcomes].count(True) == 1


@sqlite_only
def test_what_changes_no_result_may_change(storage: ResilientStorage) -> None:
    make(storage)
    _, created = make(storage, spec=read({"trials": 7, "heartbeat_s": 1.0, "grace_s": 9.0}))
    assert not created


# -- refusing


def test_another_spec_is_refused_and_the_difference_shown(storage: ResilientStorage) -> None:
    make(storage)
    with pytest.raises(StudyMismatchError) as caught:
        make(storage, spec=read(epochs=5, optimizer="sgd"))
    message = str(caught.value)
    assert "study 's' was made with other settings (stored -> now)" in message
    assert "  train.epochs: 4 -> 5\n" in message
    assert '  train.optimizer: {"choices": ["adam", "sgd"]} -> "sgd"\n' in message
    assert "another --name" in message
    assert "--warm-start s" in message


def test_other_images_are_refused(storage: ResilientStorage) -> None:
    make(storage)
    with pytest.raises(StudyMismatchError, match=f"made with data {'a' * 12}, here it is bbb"):
        make(storage, data_hash="b" * 64)


def test_of_other_images_their_numbers_are_told_and_what_to_do(storage: ResilientStorage) -> None:
    stored, _ = make(storage)
    stored.study.set_user_attr(SPLITS, {"train": 400, "validation": 50, "test": 50})
    with pytest.raises(StudyMismatchError) as caught:
        check_same_study(stored, spec=stored.spec, data_hash="b" * 64, images=501)
    message = str(caught.value)
    assert "images were added, removed or changed (500 then, 501 now)" in message
    assert "another --name; --warm-start s has it begin with the best trials" in message


def test_an_unknown_name_lists_the_studies_and_the_nearest(storage: ResilientStorage) -> None:
    with pytest.raises(StorageError, match=r"'tiny' is not in .*it holds none yet"):
        load_study(storage, "tiny")
    make(storage, "tiny")
    make(storage, "large")
    optuna.create_study(study_name="another program's", storage=storage)
    with pytest.raises(StorageError, match=r"did you mean 'tiny'\? Valid: large, tiny"):
        load_study(storage, "tinny")


def test_a_study_that_is_just_being_made_is_not_taken_for_somebody_else_s(
    storage: ResilientStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another process finds of it at any moment, it is known to be searchae's."""
    seen: list[str] = []
    original = optuna.Study.set_user_attr

    def look(study: optuna.Study, key: str, value: Any) -> None:
        with pytest.raises(NoStudyError, match="'s' is being made; try again in a moment"):
            load_study(storage, "s")
        seen.append(key)
        original(study, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "set_user_attr", look)
        stored, _ = make(storage)
    assert seen
    assert "searchae:creating" not in stored.study.user_attrs


def test_a_study_that_another_program_makes_meanwhile_is_left_alone(
    storage: ResilientStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes it after searchae has looked for the name."""
    original = stored_study._insert

    def too_late(*args: Any) -> int | None:
        optuna.create_study(study_name="s", storage=storage, direction="minimize")
        return original(*args)

    monkeypatch.setattr(stored_study, "_insert", too_late)
    with pytest.raises(StorageError, match="was made by another program"):
        make(storage)
    assert [d.name for d in storage.get_all_studies()[0].directions] == ["MINIMIZE"]


def test_a_study_that_the_dashboard_is_copying_is_left_alone(storage: ResilientStorage) -> None:
    """It renames a study by copying its attributes one after the other."""
    source, _ = make(storage)
    copied = optuna.create_study(study_name="new name", storage=storage, direction="maximize")
    for key, value in source.study.user_attrs.items():
        copied.set_user_attr(key, value)
        if key == DATA_HASH:
            break
    with pytest.raises(NoStudyError, match="is being made"):
        make(storage, "new name")
    assert study_names(storage) == ["new name", "s"]


@pytest.mark.parametrize("given", ["trials", "attributes", "nothing"])
def test_a_study_of_somebody_else_s_is_left_alone(storage: ResilientStorage, given: str) -> None:
    foreign = optuna.create_study(study_name="s", storage=storage)
    if given == "trials":
        foreign.add_trial(create_trial(value=1.0))
    elif given == "attributes":
        foreign.set_user_attr("owner", "somebody")
    for attempt in (lambda: make(storage), lambda: load_study(storage, "s")):
        with pytest.raises(StorageError, match="was made by another program"):
            attempt()
    assert study_names(storage) == ["s"]
    assert len(foreign.trials) == (given == "trials")
    assert foreign.user_attrs == ({"owner": "somebody"} if given == "attributes" else {})


# -- interrupted creation


@pytest.mark.parametrize("attribute", [BASELINE_DB, VERSIONS, IMPORTED, SPEC])
def test_a_creation_cut_off_anywhere_is_made_again(
    storage: ResilientStorage, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = make(storage, "source")
    add(source, 20.0, learning_rate=0.01, optimizer="adam")
    original = optuna.Study.set_user_attr

    def cut_off(*_args: Any) -> None:
        raise CutOffError

    def cut(study: optuna.Study, key: str, value: Any) -> None:
        if key == attribute:
            cut_off()
        original(study, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "set_user_attr", cut)
        if attribute == SPEC:
            patched.setattr(stored_study, "_complete", cut_off)
        with pytest.raises(CutOffError):
            make(storage, warm_start=source)
    with pytest.raises(StorageError):
        load_study(storage, "s")
    stored, created = make(storage, warm_start=source)
    assert created
    assert study_names(storage) == ["s", "source"]
    assert len(stored.study.trials) == 1, "nothing of the first attempt is left"
    assert stored.study.user_attrs[IMPORTED] == {"complete": 1}


# -- warm start


def imported(
    storage: ResilientStorage, source: StoredStudy, spec: StudySpec
) -> list[optuna.trial.FrozenTrial]:
    stored, created = make(storage, "new", spec=spec, warm_start=source)
    assert created
    return stored.study.get_trials(deepcopy=False)


@pytest.fixture
def source(storage: ResilientStorage) -> StoredStudy:
    return make(storage, "source")[0]


def test_imported_trials_teach_and_do_not_count(
    storage: ResilientStorage, source: StoredStudy
) -> None:
    add(source, 20.0, learning_rate=0.01, optimizer="adam")
    add(source, 12.0, learning_rate=0.05, optimizer="sgd", state=TrialState.PRUNED)
    add(source, 1.0, learning_rate=0.05, optimizer="sgd", state=TrialState.FAIL)
    add(source, 10.5, learning_rate=0.1, optimizer="sgd", user_attrs={OUTCOME: "diverged"})
    trials = imported(storage, source, read({"trials": 3}))
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    first = trials[0]
    assert (first.params, first.values) == ({"learning_rate": 0.01, "optimizer": "adam"}, [20.0])
    assert first.intermediate_values == {1: 20.0}
    assert first.user_attrs == {WARM_START: "source #0"}
    counts = Coordinator(load_study(storage, "new")).counts()
    assert (counts.complete, counts.pruned, counts.budget) == (0, 0, 3)


@sqlite_only
def test_only_trials_that_fit_the_new_space_are_taken(
    storage: ResilientStorage, source: StoredStudy
) -> None:
    add(source, 20.0, learning_rate=0.01, optimizer="adam")
    add(source, 21.0, learning_rate=0.09, optimizer="adam")
    add(source, 22.0, learning_rate=0.01, optimizer="sgd")
    narrower = read(learning_rate={"low": 1e-3, "high": 2e-2}, optimizer="adam")
    (trial,) = imported(storage, source, narrower)
    assert trial.params == {"learning_rate": 0.01}
    assert space.params_of_trial(narrower, trial.params) == space.params_of_trial(
        source.spec, {"learning_rate": 0.01, "optimizer": "adam"}
    )


@sqlite_only
def test_a_fixed_value_becomes_one_of_a_range(storage: ResilientStorage) -> None:
    fixed, _ = make(storage, "fixed", spec=read(learning_rate=0.01))
    add(fixed, 20.0, optimizer="sgd")
    (trial,) = imported(storage, fixed, read())
    assert trial.params == {"learning_rate": 0.01, "optimizer": "sgd"}


@sqlite_only
def test_trials_that_were_trained_otherwise_are_not_taken(
    storage: ResilientStorage, source: StoredStudy
) -> None:
    add(source, 20.0, learning_rate=0.01, optimizer="adam")
    assert imported(storage, source, read(batch_size=64)) == []


@sqlite_only
def test_a_parameter_that_does_not_act_is_not_imported(storage: ResilientStorage) -> None:
    l1: dict[str, Any] = {
        "regularizer": {"choices": ["clip", "clip+l1"]},
        "l1_weight": {"low": 1e-6, "high": 1e-3, "log": True},
    }
    plain, _ = make(storage, "plain", spec=read(regularizer="clip"))
    add(plain, 20.0, learning_rate=0.01, optimizer="adam")
    (trial,) = imported(storage, plain, read(**l1))
    assert trial.params == {"learning_rate": 0.01, "optimizer": "adam", "regularizer": "clip"}


@sqlite_only
def test_a_warm_start_from_other_images_begins_with_the_best_trials_there(
    storage: ResilientStorage, source: StoredStudy
) -> None:
    for psnr_db, rate in ((20.0, 0.01), (22.0, 0.02), (21.0, 0.03), (22.0, 0.02)):
        add(source, psnr_db, learning_rate=rate, optimizer="adam")
    spec = read({"trials": 8})
    stored, _ = make(storage, "new", spec=spec, data_hash="b" * 64, warm_start=source)
    trials = stored.study.trials
    assert [t.state for t in trials] == [TrialState.WAITING] * 2, "a quarter of the budget"
    assert [t.system_attrs["fixed_params"]["learning_rate"] for t in trials] == [0.02, 0.03]
    assert [t.user_attrs["searchae:started_from"] for t in trials] == ["source #1", "source #2"]
    assert Coordinator(stored).counts().finished == 0, "what was measured there does not count"


def test_a_starting_point_that_the_study_file_has_too_is_trained_once(
    storage: ResilientStorage, source: StoredStudy
) -> None:
    for psnr_db, rate in ((22.0, 0.02), (21.0, 0.03)):
        add(source, psnr_db, learning_rate=rate, optimizer="adam")
    spec = read({"trials": 8, "first": [{"learning_rate": 0.02, "optimizer": "adam"}]})
    stored, _ = make(storage, "new", spec=spec, data_hash="b" * 64, warm_start=source)
    fixed = [t.system_attrs["fixed_params"]["learning_rate"] for t in stored.study.trials]
    assert fixed == [0.03]


def test_a_warm_start_is_made_at_the_start_only(
    storage: ResilientStorage, source: StoredStudy
) -> None:
    add(source, 20.0, learning_rate=0.01, optimizer="adam")
    make(storage, "new", warm_start=source)
    stored, created = make(storage, "new", warm_start=source)
    assert not created
    assert len(stored.study.trials) == 1


def test_a_checkout_that_is_not_installed_knows_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def installed(name: str) -> str:
        if name == "searchae":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(stored_study, "_version", installed)
    assert stored_study.package_versions()["searchae"] == __version__
