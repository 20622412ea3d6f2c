"""Summaries of the comparison over the random seeds."""

import pytest

from experiments.compared_students import ROWS, STUDENTS, TEACHER
from experiments.evidence_results import Run, plan_runs
from experiments.evidence_summary import main_target, summarize
from tests.helpers.evidence_results import TARGET, results_of


def test_means_and_spreads():
    results = results_of(plan_runs(ROWS, [TARGET], [1, 2, 3]), accuracy=lambda run: 0.1 * (run.seed or 5))
    summaries = {summary.row: summary for summary in summarize(results)}
    assert list(summaries) == [TEACHER, *STUDENTS]
    assert summaries["learned"].seeds == (1, 2, 3)
    assert summaries["learned"].mean("words") == pytest.approx(0.2)
    assert summaries["learned"].spread("words") == pytest.approx(0.1)
    assert summaries[TEACHER].mean("held_out_loss") is None
    assert summaries[TEACHER].spread("words") is None


def test_main_target_has_the_most_rows():
    runs = [
        Run(TEACHER),
        Run("learned", 0.3, 1),
        Run("learned", 0.5, 1),
        Run("one_stage", 0.5, 1),
        Run("learned", 0.7, 1),
    ]
    assert main_target(summarize(results_of(runs))) == 0.5
    assert main_target(summarize(results_of([run for run in runs if run.row != "one_stage"]))) == 0.7
    assert main_target(summarize(results_of(runs[:1]))) is None
