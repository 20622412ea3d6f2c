"""Summaries of one-shot pruning over the draws of the calibration audio."""

import json

import pytest

from experiments.one_shot_results import Run
from experiments.one_shot_students import ROWS
from experiments.one_shot_summary import loss_curves, main_draw, trained_curves
from tests.helpers.one_shot_results import result_of, runs_of


def test_means_and_spreads_over_the_seeds():
    runs = runs_of(["rounds", "one_round"], [0.3, 0.5], seeds=(1, 2, 3))
    results = [result_of(run, loss=0.1 * run.seed) for run in runs] + [result_of(Run("magnitude", 0.3), loss=0.7)]
    first, second, third = loss_curves(results)
    assert [curve.row for curve in (first, second, third)] == ["magnitude", "one_round", "rounds"]
    assert first.draw.label == "none" and first.spread(0.3) is None and first.mean(0.3) == 0.7
    assert third.seeds == {1, 2, 3} and third.draw.label == "40 s of speech"
    assert third.mean(0.5) == pytest.approx(0.2) and third.spread(0.5) == pytest.approx(0.1)
    assert third.size(0.3) == 700


def test_curves_of_less_audio_come_first_and_the_main_one_has_the_most_rows():
    runs = runs_of(["rounds", "one_round"], [0.5])
    runs += [run for crops in (30, 2) for run in runs_of(["rounds"], [0.5], draw=("speech", crops, 4.0))]
    curves = loss_curves([result_of(run) for run in runs])
    assert [curve.draw.num_crops for curve in curves if curve.row == "rounds"] == [2, 10, 30]
    assert main_draw(curves).num_crops == 10
    assert main_draw(loss_curves([result_of(Run("magnitude", 0.3))])) is None


def test_trained_students_are_read_from_the_other_experiment(tmp_path):
    summary = {
        "target_sparsity": 0.5,
        "seeds": [1, 2],
        "num_parameters": 500.0,
        "values": {"loss": [0.1, 0.3]},
    }
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps({"summaries": [{"row": row, **summary} for row in ("magnitude_trained", "teacher")]}))
    (curve,) = trained_curves(path)
    assert curve.label == "largest weights, trained" and curve.mean(0.5) == pytest.approx(0.2)


def test_every_row_has_a_label_of_its_own():
    assert len({row.label for row in ROWS.values()}) == len(ROWS)
