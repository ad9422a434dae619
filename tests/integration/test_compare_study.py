"""From a finished search to what it shows: matched experiments, kept trainings, verdicts, ranks."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from searchae import retrain
from searchae.compare import (
    Comparison,
    ComparisonOptions,
    ComparisonRun,
    Reranking,
    TopOptions,
)
from searchae.compare.verdict import Verdict
from searchae.errors import SearchaeError, UserError
from searchae.formatting import format_duration
from searchae.launch.request import FleetRequest
from searchae.retrain.list_run import RecordFolder
from searchae.retrain.plan import find_trial
from searchae.study.attributes import WINNER
from searchae.study.stored_study import StoredStudy, load_study
from searchae.study.summary import Summary
from searchae.study.training_list import find_training_list
from searchae.tuning.monitor import Watcher
from tests.integration import finished_studies
from tests.thread_launcher import Recorder, ThreadLauncher

pytestmark = pytest.mark.usefixtures("keeps_threads")

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
CHANGES_NOTHING = {
    **FIXED,
    "model.activation": "tanh",
    "train.epochs": 6,
    "train.batch_size": 8,
    "train.learning_rate": 1e-2,
    "train.l1_target": {"choices": ["latent", "weights"]},
}
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
BOTH = ("l1_target", "optimizer")


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return finished_studies.search(tmp_path_factory.mktemp("same"), **CHANGES_NOTHING)


@pytest.fixture(scope="module")
def differing(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return finished_studies.search(tmp_path_factory.mktemp("differing"), **ONE_IS_WORSE)


def home(stored: StoredStudy) -> Path:
    return Path(str(stored.storage.engine.url.database)).parent


def request(stored: StoredStudy, **changes: Any) -> FleetRequest:
    return FleetRequest(
        **{
            "storage": stored.storage.engine.url,
            "workers": 1,
            "threads": 1,
            "device": "cpu",
            "data_dir": home(stored) / "data",
            "artifacts": home(stored) / "artifacts",
            **changes,
        }
    )


def compare(
    stored: StoredStudy,
    *,
    watcher: Watcher | None = None,
    out: Path | None = None,
    fleet: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[list[Verdict], dict[str, Any]]:
    made = Comparison(stored, ComparisonOptions(**{"until_db": 3.0, **options}))
    asked = request(stored, **(fleet or {}))
    run = ComparisonRun(made, asked, ThreadLauncher(), watcher or Recorder())
    result, document = run.run(out)
    return [*result.verdicts], document


@pytest.fixture(scope="module")
def judged(differing: StoredStudy) -> tuple[list[Verdict], dict[str, Any]]:
    """Both parameters of the study where one choice is worse."""
    return compare(differing, by=BOTH)


def test_a_parameter_that_changes_nothing_shows_no_difference(same: StoredStudy) -> None:
    (verdict,), _ = compare(same, by=["l1_target"])
    assert not verdict.shown
    assert verdict.sentence.startswith("l1_target: no difference shown between")
    assert verdict.statistics.pairs[0].mean_db == 0, "the same nets, to the bit"


def test_a_choice_that_is_truly_worse_loses(
    judged: tuple[list[Verdict], dict[str, Any]],
) -> None:
    by_name = {v.parameter: v for v in judged[0]}
    assert tuple(by_name) == BOTH
    assert not by_name["l1_target"].shown
    optimizer = by_name["optimizer"]
    assert optimizer.shown
    assert optimizer.best.name == "adam"
    assert optimizer.sentence.startswith("optimizer: adam beats sgd by ")
    (pair,) = optimizer.statistics.pairs
    assert 0 < pair.low_db < pair.mean_db < pair.high_db
    adam, sgd = (optimizer.means(c) for c in optimizer.order)
    assert adam["mse"] < sgd["mse"]
    assert adam["ssim"] > sgd["ssim"]


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """A search that gave tanh rates at which it cannot learn, and relu good ones."""
    first = [{"activation": "relu", "learning_rate": rate} for rate in (3e-3, 1e-2)]
    first += [{"activation": "tanh", "learning_rate": rate} for rate in (1e-6, 3e-6)]
    return finished_studies.search(
        tmp_path_factory.mktemp("unlucky"),
        **{
            **FIXED,
            "search.trials": 4,
            "search.first": first,
            "train.epochs": 8,
            "train.batch_size": 8,
            "train.learning_rate": {"low": 1e-6, "high": 1e-1, "log": True},
            "model.activation": {"choices": ["relu", "tanh"]},
        },
    )


@pytest.mark.fleet
def test_a_limit_of_trainings_ends_it_and_says_what_is_lacking(unlucky: StoredStudy) -> None:
    """Before the tests that train more of this study: looks that are complete cost nothing."""
    (first,), _ = compare(unlucky, by=["activation"], until_db=50.0)
    assert first.half_width_db is not None
    until_db = 0.95 * first.half_width_db
    (verdict,), document = compare(unlucky, by=["activation"], until_db=until_db, max_trainings=1)
    assert verdict.half_width_db == first.half_width_db
    assert "--max-trainings ended it" in verdict.lacking
    assert any("--max-trainings ended it" in note for note in document["notes"])


def test_a_choice_with_bad_learning_rates_in_the_search_is_not_beaten_by_that(
    unlucky: StoredStudy,
) -> None:
    found = {t.params["activation"]: t.values[0] for t in unlucky.study.trials}
    assert found["relu"] - found["tanh"] > 1, "so the search says, and it is only luck"
    (verdict,), _ = compare(unlucky, by=["activation"], until_db=1.0)
    by_name = {c.name: c for c in verdict.choices}
    assert by_name["tanh"].trains
    assert by_name["tanh"].mean_db > found["tanh"] + 1, "it found a learning rate of its own"
    assert "relu beats tanh" not in verdict.sentence
    for row in verdict.cells:
        assert all(1e-4 < cell.settings["learning_rate"] < 1e-1 for cell in row)
    listed = find_training_list(unlucky)
    assert listed is not None
    tries = [t for t in listed.trials().values() if not listed.is_tested(t)]
    counts = {a: sum(t.params["activation"] == a for t in tries) for a in ("relu", "tanh")}
    assert min(counts.values()) >= 7, "each has at least its number of tries"


def test_new_seeds_are_measured_and_tries_have_the_search_s_own(
    unlucky: StoredStudy,
) -> None:
    compare(unlucky, by=["activation"], until_db=1.0)
    listed = find_training_list(unlucky)
    assert listed is not None
    trials = listed.trials().values()
    seeds = {
        is_tested: {
            t.user_attrs["searchae:training"]["seed"]
            for t in trials
            if listed.is_tested(t) == is_tested
        }
        for is_tested in (True, False)
    }
    assert unlucky.spec.seed in seeds[False]
    assert not seeds[True] & seeds[False], (
        "nothing is measured on a seed that something was chosen by"
    )


def test_the_second_time_nothing_is_trained_and_the_same_is_said(
    differing: StoredStudy, judged: tuple[list[Verdict], dict[str, Any]]
) -> None:
    watcher = Recorder()
    again, document = compare(differing, by=BOTH, watcher=watcher)
    assert watcher.rows == []
    assert [v.document() for v in again] == [v.document() for v in judged[0]]
    kept = json.loads((home(differing) / "artifacts/tiny/compare/comparison.json").read_text())
    assert kept == json.loads(json.dumps(document))


class InterruptAfter(Recorder):
    """Interrupts once so many trainings have ended."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def progress(self, summary: Summary) -> None:
        if summary.counts.finished >= self._count:
            raise KeyboardInterrupt


@pytest.mark.fleet
def test_an_interrupted_comparison_trains_only_what_is_missing(tmp_path: Path) -> None:
    stored = finished_studies.search(tmp_path, **ONE_IS_WORSE)
    interrupted = InterruptAfter(3)
    with pytest.raises(KeyboardInterrupt):
        compare(stored, by=["optimizer"], watcher=interrupted)
    assert re.match(r"unfinished after \d+ of about \d+ trainings; known", interrupted.notes[-2])
    assert re.match(r"  optimizer: nothing known yet: \d+ of about \d+", interrupted.notes[-1])
    listed = find_training_list(stored)
    assert listed is not None
    before = [t for t in listed.trials().values() if t.state.is_finished()]
    assert len(before) >= 3
    watcher = Recorder()
    compare(stored, by=["optimizer"], watcher=watcher)
    trials = stored.storage.get_all_trials(listed.stored.id)
    assert len(watcher.rows) == len(trials) - len(before)
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert len(listed.trials()) == len(trials), "no training was listed twice"


@pytest.mark.fleet
def test_two_comparisons_at_once_share_the_work(tmp_path: Path) -> None:
    stored = finished_studies.search(tmp_path, **ONE_IS_WORSE)
    sentences: list[str] = []

    def run() -> None:
        own = load_study(stored.storage, "tiny")
        (verdict,), _ = compare(own, by=["optimizer"])
        sentences.append(verdict.sentence)

    both = [threading.Thread(target=run) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(timeout=120)
    assert len(sentences) == 2
    assert sentences[0] == sentences[1]
    listed = find_training_list(stored)
    assert listed is not None
    trials = stored.storage.get_all_trials(listed.stored.id)
    assert len(listed.trials()) == len(trials), "no training was done twice"


def test_the_test_split_figures_are_those_of_a_bundle_of_the_same_training(
    differing: StoredStudy, judged: tuple[list[Verdict], dict[str, Any]], tmp_path: Path
) -> None:
    optimizer = judged[0][1]
    best = optimizer.statistics.best
    cell = optimizer.cells[best][0]
    trial = optimizer.base_trials[0]
    plan = retrain.plan_retraining(
        differing, trial=str(trial), epochs="search", seeds=3, device=torch.device("cpu")
    )
    told = retrain.train_bundle(
        plan,
        out=tmp_path / "bundle",
        request=request(differing),
        launcher=ThreadLauncher(),
        watcher=Recorder(),
    )
    by_seed = {row["seed"]: row for row in told["seeds"]["rows"]}
    assert len(cell.records) >= 2
    for record in cell.records[:2]:
        assert by_seed[record.seed]["psnr_db"] == record.summary()["psnr_db"]
        assert by_seed[record.seed]["ssim"] == record.summary()["ssim"]


def test_the_page_shows_effects_curves_and_pictures(
    differing: StoredStudy, judged: tuple[list[Verdict], dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "page.html"
    compare(differing, by=BOTH, out=out)
    page = out.read_text()
    for name in BOTH:
        for kind in ("effects", "trainings", "losses"):
            assert f'id="{name}-{kind}"' in page
    assert page.count('<img alt="Originals, and their') == 2
    assert judged[0][1].sentence.split(": ")[1] in page
    assert "How it was measured" in page
    assert 'src="http' not in page


def test_what_the_penalty_costs_and_buys_is_measured_by_its_weight(tmp_path: Path) -> None:
    stored = finished_studies.search(
        tmp_path,
        **{
            **ONE_IS_WORSE,
            "search.trials": 4,
            "train.optimizer": "adam",
            "train.l1_target": "latent",
            "train.regularizer": {"choices": ["clip", "clip+l1"]},
            "train.l1_weight": {"low": 1e-3, "high": 1.0, "log": True},
        },
    )
    out = tmp_path / "page.html"
    (verdict,), document = compare(stored, by=["regularizer"], out=out)
    points = document["l1_curve"]["points"]
    assert [p["weight"] for p in points] == [0.0, 1e-3, 1e-2, 1e-1, 1.0]
    none, *_, heavy = points
    assert heavy["near_zero"] > none["near_zero"], "it buys sparsity"
    assert heavy["gain_db"] < 0, "and costs PSNR"
    assert heavy["psnr_db"] == pytest.approx(none["psnr_db"] + heavy["gain_db"])
    assert 0.0 in document["l1_curve"]["front"] or none["is_dominated"]
    assert document["l1_curve"]["sentence"] in json.dumps(document)
    assert 'id="l1-curve"' in out.read_text()
    listed = find_training_list(stored)
    assert listed is not None
    tested = [t for t in listed.trials().values() if listed.is_tested(t)]
    clipped = [t for t in tested if t.params["regularizer"] == "clip"]
    (clip,) = (c for c in verdict.choices if c.name == "clip")
    assert len(clipped) == clip.trainings, "the trainings without the penalty are shared"
    (verdict,), document = compare(stored, by=["regularizer"], has_l1_curve=False)
    assert document["l1_curve"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": ["optimiser"]}, "--by optimiser: is not searched here; did you mean 'optimizer'"),
        ({"by": ["learning_rate"]}, "--by learning_rate: "),
        ({"by": ["batch_size"]}, "--by batch_size: "),
        ({"until_db": 0.0}, "--until 0: give a number of dB above 0"),
        ({"until_db": float("nan")}, "--until nan"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    differing: StoredStudy, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Comparison(differing, ComparisonOptions(**options))


def test_a_range_has_no_choices_to_compare(tmp_path: Path) -> None:
    rates = {"low": 1e-3, "high": 1e-2, "log": True}
    stored = finished_studies.search(
        tmp_path, **{**FIXED, "train.learning_rate": rates, "search.trials": 1}
    )
    with pytest.raises(UserError, match="learning_rate: is searched over a range, and only param"):
        Comparison(stored, ComparisonOptions(by=["learning_rate"]))
    with pytest.raises(UserError, match="nothing to compare: regularizer, activation, optimizer"):
        Comparison(stored, ComparisonOptions())


def test_what_is_searched_and_not_compared_is_said_with_the_reason(
    tmp_path: Path, differing: StoredStudy
) -> None:
    stored = finished_studies.search(
        tmp_path,
        **{
            **ONE_IS_WORSE,
            "train.learning_rate": {"low": 1e-2, "high": 2e-2, "log": True},
            "model.latent_dim": {"low": 4, "high": 6},
            "train.epochs": 12,
            "search.trials": 4,
        },
    )
    tuned, others, unnamed = Comparison(stored, ComparisonOptions()).not_compared
    assert tuned.startswith("not compared: learning_rate (searched over a range,")
    assert "tuned anew for each choice" in tuned
    assert others.startswith("not compared: latent_dim (searched over a range,")
    assert unnamed == "not compared: l1_target (to compare instead: --by l1_target)"
    assert Comparison(differing, ComparisonOptions(by=BOTH)).not_compared == []


def test_the_expected_time_is_that_of_the_search_s_epochs(differing: StoredStudy) -> None:
    comparison = Comparison(differing, ComparisonOptions(by=["optimizer"], until_db=0.5))
    plan = comparison.estimate()
    said = comparison.expected_text(done=0, workers=1)
    time = format_duration(plan["seconds"])
    count = plan["trainings"]
    assert said.startswith(f"expected: about {time} with 1 worker until the first answers (about")
    assert said.endswith("more follow until each difference is known within 0.5 dB")
    some = comparison.expected_text(done=1, workers=2)
    half = format_duration(plan["seconds"] * (count - 1) / count / 2)
    assert f"about {half} with 2 workers" in some
    assert f"{count} trainings, 1 of them done" in some
    assert "expected" not in comparison.expected_text(done=count, workers=2)


def test_a_list_of_trainings_is_not_compared_nor_searched_on(
    differing: StoredStudy, judged: tuple[list[Verdict], dict[str, Any]]
) -> None:
    del judged
    listed = load_study(differing.storage, "tiny.trainings")
    with pytest.raises(UserError, match="lists trainings of study 'tiny': name that one instead"):
        Comparison(listed, ComparisonOptions())
    with pytest.raises(UserError, match="lists trainings of study 'tiny'"):
        retrain.plan_retraining(listed, device=torch.device("cpu"))


@pytest.mark.fleet
def test_measurements_that_cannot_be_written_end_it_with_a_reason(tmp_path: Path) -> None:
    stored = finished_studies.search(tmp_path, **{**ONE_IS_WORSE, "search.trials": 4})
    (tmp_path / "artifacts" / "tiny.trainings").mkdir(parents=True)
    (tmp_path / "artifacts" / "tiny.trainings" / "records").write_text("no folder")
    with pytest.raises(SearchaeError, match=r"--artifacts .*records"):
        compare(stored, by=["optimizer"])


def test_fewer_trials_than_asked_for_are_spoken_of(differing: StoredStudy) -> None:
    made = Reranking(differing, TopOptions(top=99, seeds=2))
    assert len(made.rows) == len(differing.study.trials), "all have trained to their end"
    said = f"--top 99: there are results of {len(made.rows)} trials only"
    assert made.shortfall == said


def test_the_best_are_ranked_again_by_their_mean_over_new_seeds(differing: StoredStudy) -> None:
    made = Reranking(differing, TopOptions(top=4, seeds=5))
    assert not made.shortfall
    watcher = Recorder()
    found, document = made.run(request(differing), ThreadLauncher(), watcher)
    assert len(made.trainings) == 4 * 5
    assert len({t.key for t in made.trainings.values()}) >= len(watcher.rows) > 0
    assert [r.mean_db for r in found.rows] == sorted((r.mean_db for r in found.rows), reverse=True)
    watcher = Recorder()
    made.run(request(differing), ThreadLauncher(), watcher)
    assert watcher.rows == [], "they are kept"
    listed = find_training_list(differing)
    assert listed is not None
    folder = RecordFolder(home(differing) / "artifacts", listed)
    recorded = {t.number: t.value for t in differing.study.get_trials(deepcopy=False)}
    for row in found.rows:
        records = [folder.read(made.trainings[row.number, s].key) for s in range(1, 6)]
        last = [r.searched_psnr_db(differing.baseline_db) for r in records]
        assert (row.mean_db, row.std_db) == pytest.approx((np.mean(last), np.std(last, ddof=1)))
        assert row.searched_db == recorded[row.number]
        better = [r for r in found.rows if r.searched_db > row.searched_db]
        assert all(r.searched_rank < row.searched_rank for r in better)
    best = found.searched_best
    assert document["optimism_db"] == pytest.approx(best.searched_db - best.mean_db)
    stored = load_study(differing.storage, "tiny")
    left = stored.study.user_attrs[WINNER]
    assert left == {
        "number": found.winner.number,
        "seeds": [1, 2, 3, 4, 5],
        "mean_db": left["mean_db"],
    }
    assert find_trial(stored, "winner").number == found.winner.number
