"""From a finished search to what it shows: sides, trainings that are kept, verdicts, ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from searchae import retrain
from searchae.compare.run import Comparison, Reranking, TrainingSchedule
from searchae.compare.trainings import PlannedTraining
from searchae.compare.verdict import Verdict
from searchae.errors import UserError
from searchae.retrain.plan import find_trial
from searchae.study.attributes import WINNER
from searchae.study.stored_study import StoredStudy, load_study
from tests.integration import finished_studies

pytestmark = pytest.mark.usefixtures("keeps_threads")

CPU = torch.device("cpu")
FIXED = {
    "search.pruner": "none",
    "search.sampler": "random",
    "search.trials": 8,
    "train.epochs": 2,
    "train.regularizer": "clip",
    "train.l1_weight": 1e-4,
    "train.learning_rate": 3e-3,
    "model.activation": "relu",
    "train.optimizer": "adam",
}
CHANGES_NOTHING = {**FIXED, "train.l1_target": {"choices": ["latent", "weights"]}}
"""Without an L1 penalty its target has no part in anything."""
ONE_IS_WORSE = {
    **FIXED,
    "model.activation": "tanh",
    "train.l1_target": {"choices": ["latent", "weights"]},
    "train.optimizer": {"choices": ["adam", "sgd"]},
    "train.epochs": 6,
    "train.batch_size": 8,
    "train.learning_rate": 1e-2,
    "train.momentum": 0.0,
}
"""At this learning rate plain gradient descent hardly moves."""
BOTH = ["l1_target", "optimizer"]


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return finished_studies.search(tmp_path_factory.mktemp("same"), **CHANGES_NOTHING)


@pytest.fixture(scope="module")
def differing(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return finished_studies.search(tmp_path_factory.mktemp("differing"), **ONE_IS_WORSE)


def home(stored: StoredStudy) -> Path:
    return Path(str(stored.storage.engine.url.database)).parent


def schedule(**changes: Any) -> TrainingSchedule:
    given = {"seeds": 2, "epochs": None, "patience": None, "device": CPU, "threads": None}
    return TrainingSchedule(**{**given, **changes})


def contest(stored: StoredStudy, at: Path, **changes: Any) -> Comparison:
    how = schedule(**{k: changes.pop(k) for k in ("seeds", "epochs") if k in changes})
    return Comparison(stored, how, **{"best": 2, "artifacts": at, **changes})


def run(
    made: Comparison, out: Path | None = None, **told: Any
) -> tuple[list[Verdict], list[PlannedTraining]]:
    works: list[PlannedTraining] = []
    given = {"on_training": works.append, "note": lambda text: None, **told}
    verdicts, _ = made.run(data_dir=home(made.stored) / "data", out=out, **given)
    return verdicts, works


@pytest.fixture(scope="module")
def judged(
    differing: StoredStudy, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Verdict], list[PlannedTraining]]:
    """Both parameters of the study where one choice is worse."""
    at = tmp_path_factory.mktemp("judged")
    return at, *run(contest(differing, at, by=BOTH))


def test_a_parameter_that_changes_nothing_shows_no_difference(
    same: StoredStudy, tmp_path: Path
) -> None:
    verdict = run(contest(same, tmp_path, by=["l1_target"]))[0][0]
    assert not verdict.shown
    assert verdict.sentence.startswith("l1_target: no difference shown between")
    assert verdict.pairs[0].mean_db == 0, "the same nets, to the bit"
    assert [len(s.trials) for s in verdict.sides] == [2, 2]


def test_nor_where_its_trials_differ_in_other_things(tmp_path: Path) -> None:
    rates = {"low": 1e-3, "high": 1e-2, "log": True}
    stored = finished_studies.search(tmp_path, **{**CHANGES_NOTHING, "train.learning_rate": rates})
    verdict = run(contest(stored, tmp_path / "artifacts", by=["l1_target"], best=3, seeds=3))[0][0]
    assert verdict.pairs[0].mean_db > 0, "no two trials are the same"
    assert not verdict.shown
    assert "no difference shown between" in verdict.sentence


def test_a_choice_that_is_truly_worse_loses(
    judged: tuple[Path, list[Verdict], list[PlannedTraining]],
) -> None:
    _, verdicts, _ = judged
    by_name = {v.parameter: v for v in verdicts}
    assert list(by_name) == BOTH
    optimizer = by_name["optimizer"]
    assert optimizer.shown
    assert [s.name for s in optimizer.sides] == ["adam", "sgd"]
    assert optimizer.sentence.startswith("optimizer: adam beats sgd by ")
    pair = optimizer.pairs[0]
    assert 0 < pair.low_db < pair.mean_db < pair.high_db
    assert optimizer.sides[0].mse < optimizer.sides[1].mse
    assert optimizer.sides[0].ssim > optimizer.sides[1].ssim


def test_the_best_of_each_side_stand_for_it(
    differing: StoredStudy, judged: tuple[Path, list[Verdict], list[PlannedTraining]]
) -> None:
    trials = differing.study.get_trials(deepcopy=False)
    for verdict in judged[1]:
        for side in verdict.sides:
            mine = [t for t in trials if t.params[verdict.parameter] == side.name]
            best = sorted(mine, key=lambda t: (-t.values[0], t.number))[:2]
            assert side.trials == tuple(t.number for t in best)
            assert side.finished == len(mine)


def test_each_training_is_done_once_and_on_seeds_that_the_search_did_not_use(
    differing: StoredStudy, judged: tuple[Path, list[Verdict], list[PlannedTraining]]
) -> None:
    _, verdicts, works = judged
    assert differing.spec.seed == 0
    assert {w.seed for w in works} == {1, 2}
    wanted = {t for v in verdicts for s in v.sides for t in s.trials}
    assert sorted((w.trial, w.seed) for w in works) == sorted(
        (t, s) for t in wanted for s in (1, 2)
    )
    assert [w.number for w in works] == list(range(1, len(works) + 1))
    assert all(w.seconds_left is not None and w.seconds_left > 0 for w in works)


def test_the_test_split_figures_are_those_of_a_bundle_of_the_same_training(
    differing: StoredStudy,
    judged: tuple[Path, list[Verdict], list[PlannedTraining]],
    tmp_path: Path,
) -> None:
    at, verdicts, _ = judged
    trial = verdicts[0].sides[0].trials[0]
    plan = retrain.plan_retraining(
        differing, trial=str(trial), epochs="search", seeds=3, device=CPU
    )
    told = retrain.train_bundle(
        plan,
        out=tmp_path / "bundle",
        data_dir=home(differing) / "data",
        on_epoch=lambda *_: None,
        note=lambda text: None,
    )
    for row in told["seeds"]["rows"][1:]:
        (path,) = at.glob(f"tiny/compare/{trial:06d}-{row['seed']}-*.npz")
        with np.load(path) as archive:
            assert archive["psnr_db"].mean() == pytest.approx(row["psnr_db"], abs=1e-12)
            assert archive["ssim"].mean() == pytest.approx(row["ssim"], abs=1e-12)
            assert archive["mse"].mean() == pytest.approx(row["mse"], abs=1e-15)


def test_the_second_time_nothing_is_trained_and_the_same_is_said(
    differing: StoredStudy, judged: tuple[Path, list[Verdict], list[PlannedTraining]]
) -> None:
    at, verdicts, _ = judged
    again, works = run(contest(differing, at, by=BOTH))
    assert works == []
    assert again == verdicts
    kept = json.loads((at / "tiny" / "compare" / "comparison.json").read_text())
    assert [c["sentence"] for c in kept["comparisons"]] == [v.sentence for v in verdicts]


def test_an_interrupted_comparison_goes_on(differing: StoredStudy, tmp_path: Path) -> None:
    def interrupt(work: PlannedTraining) -> None:
        if work.number == 3:
            raise KeyboardInterrupt

    made = contest(differing, tmp_path, by=["optimizer"], epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run(made, on_training=interrupt)
    assert len(made.store.wanted) - len(made.store.missing()) == 2
    _, works = run(made)
    assert len(works) == len(made.store.wanted) - 2
    assert made.store.missing() == []


def test_a_damaged_training_is_done_again(
    differing: StoredStudy,
    judged: tuple[Path, list[Verdict], list[PlannedTraining]],
    tmp_path: Path,
) -> None:
    shutil.copytree(judged[0], tmp_path / "copy")
    torn, cut, other = sorted((tmp_path / "copy" / "tiny" / "compare").glob("*.npz"))[:3]
    content = bytearray(torn.read_bytes())
    content[len(content) // 2] ^= 0xFF
    torn.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:100])
    np.savez(other, about=np.array([{}], dtype=object))
    again, works = run(contest(differing, tmp_path / "copy", by=BOTH))
    assert len(works) == 3
    assert again == judged[1]


def test_another_schedule_is_another_training(
    differing: StoredStudy, judged: tuple[Path, list[Verdict], list[PlannedTraining]]
) -> None:
    made = contest(differing, judged[0], by=BOTH, epochs=1)
    assert made.store.missing() == made.store.wanted
    assert made.about()["epochs"] == 1


def test_the_page_shows_curves_intervals_and_pictures(
    differing: StoredStudy,
    judged: tuple[Path, list[Verdict], list[PlannedTraining]],
    tmp_path: Path,
) -> None:
    out = tmp_path / "new" / "page.html"
    run(contest(differing, judged[0], by=BOTH), out)
    page = out.read_text()
    for name in BOTH:
        assert f'id="{name}-losses"' in page
        assert f'id="{name}-intervals"' in page
    assert page.count('<img alt="Originals, and their') == 2
    assert "adam beats sgd" in page
    assert 'src="http' not in page


def test_a_choice_that_no_trial_was_trained_with_is_said_to_be_untried(
    differing: StoredStudy, tmp_path: Path
) -> None:
    trials = differing.study.get_trials(deepcopy=False)
    counts = [sum(t.params["optimizer"] == o for t in trials) for o in ("adam", "sgd")]
    verdict = run(contest(differing, tmp_path, by=["optimizer"], best=20, epochs=1))[0][0]
    assert sorted(len(s.trials) for s in verdict.sides) == sorted(counts)
    assert any("not 20, that ended well" in note for note in verdict.notes)
    lone = finished_studies.search(
        _new(tmp_path, "lone"), **{**ONE_IS_WORSE, "search.trials": 1, "train.epochs": 1}
    )
    with pytest.raises(UserError, match="nothing to compare yet"):
        run(contest(lone, tmp_path / "there"))


def test_a_choice_that_the_search_always_stopped_early_has_its_verdict_too(tmp_path: Path) -> None:
    halving = {"search.pruner": "successive-halving", "search.first": [{"optimizer": "adam"}]}
    stored = finished_studies.search(tmp_path, **{**ONE_IS_WORSE, **halving})
    trials = [t for t in stored.study.trials if t.params["optimizer"] == "sgd"]
    assert trials
    assert {t.state.name for t in trials} == {"PRUNED"}
    verdict = run(contest(stored, tmp_path / "artifacts", by=["optimizer"]))[0][0]
    assert verdict.sentence.startswith("optimizer: adam beats sgd by ")
    sgd = verdict.sides[1]
    assert sgd.pruned == len(sgd.trials) == 2
    assert any("2 of the 2 trials of sgd had been stopped early" in note for note in verdict.notes)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (["optimiser"], "--by optimiser: did you mean 'optimizer'"),
        (["learning_rate"], "--by learning_rate: "),
        (["batch_size"], "--by batch_size: "),
    ],
)
def test_a_parameter_without_choices_has_no_sides(
    differing: StoredStudy, tmp_path: Path, by: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        contest(differing, tmp_path, by=by)


def test_a_range_has_no_sides(tmp_path: Path) -> None:
    rates = {"low": 1e-3, "high": 1e-2, "log": True}
    stored = finished_studies.search(
        tmp_path, **{**FIXED, "train.learning_rate": rates, "search.trials": 1}
    )
    with pytest.raises(UserError, match="learning_rate: is a range; sides are made of choices"):
        contest(stored, tmp_path, by=["learning_rate"])
    with pytest.raises(UserError, match="nothing to compare: regularizer, activation, optimizer"):
        contest(stored, tmp_path)


def test_the_best_are_ranked_again_by_their_mean_over_new_seeds(
    differing: StoredStudy, tmp_path: Path
) -> None:
    made = Reranking(differing, schedule(seeds=3), top=4, artifacts=tmp_path)
    works: list[PlannedTraining] = []
    where = home(differing) / "data"
    found, document = made.run(data_dir=where, on_training=works.append, note=lambda text: None)
    assert len(works) == 4 * 3
    assert [r.mean_db for r in found.rows] == sorted((r.mean_db for r in found.rows), reverse=True)
    baseline = differing.baseline_db
    trained = made.store.train(data_dir=where, on_training=works.append, note=lambda text: None)
    assert len(works) == 4 * 3, "they are kept"
    recorded = {t.number: t.value for t in differing.study.get_trials(deepcopy=False)}
    for row in found.rows:
        last = [trained[row.number, s].searched_psnr_db(baseline) for s in (1, 2, 3)]
        assert (row.mean_db, row.std_db) == pytest.approx((np.mean(last), np.std(last, ddof=1)))
        assert row.searched_db == recorded[row.number]
        better = [r for r in found.rows if r.searched_db > row.searched_db]
        assert all(r.searched_rank < row.searched_rank for r in better)
    best = found.searched_best
    assert document["flattery_db"] == pytest.approx(best.searched_db - best.mean_db)
    stored = load_study(differing.storage, "tiny")
    left = stored.study.user_attrs[WINNER]
    assert left == {"number": found.winner.number, "seeds": [1, 2, 3], "mean_db": left["mean_db"]}
    assert find_trial(stored, "winner").number == found.winner.number


def _new(at: Path, name: str) -> Path:
    (at / name).mkdir()
    return at / name
