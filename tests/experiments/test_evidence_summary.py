"""Summaries of the comparison over the random seeds."""

import pytest

from experiments.compared_students import ROWS, STUDENTS, TEACHER
from experiments.evidence_results import Run, plan_runs
from experiments.evidence_summary import COLUMNS, find_summary, main_target, summarize
from tests.helpers.evidence_results import TARGET, results_of


def test_means_and_spreads():
    results = results_of(plan_runs(ROWS, [TARGET], [1, 2, 3]), correct=lambda run: run.seed or 5)
    summaries = {summary.row: summary for summary in summarize(results)}
    assert list(summaries) == [TEACHER, *STUDENTS]
    summary = summaries["one_shot"]
    assert summary.seeds == (1, 2, 3) and summary.values.keys() == COLUMNS.keys()
    assert summary.mean("words") == pytest.approx(2 / 6) and summary.spread("words") == pytest.approx(1 / 6)
    assert summary.mean("cosine") == pytest.approx(0.9) and summary.mean("last_cosine") == pytest.approx(0.8)
    assert summary.mean("units") == 0.75
    assert summaries[TEACHER].spread("words") is None and summaries[TEACHER].mean("loss") == 0


def test_clips_are_averaged_over_the_seeds_before_they_are_compared():
    runs = [Run(TEACHER), Run("one_shot", TARGET, 1), Run("one_shot", TARGET, 2)]
    teacher, student = summarize(results_of(runs, correct=lambda run: {None: 5, 1: 2, 2: 4}[run.seed]))
    # Of groups of 2, 3 and 1 clips: 2, 0, 0 and 2, 2, 0.
    assert student.outcomes["words"].correct.tolist() == [2, 1, 0]
    difference = student.differences(teacher)["words"]
    assert difference.mean == pytest.approx(-2 / 6) and difference.lower < difference.mean < difference.upper <= 0
    assert student.differences(teacher).keys() == {"words", "drop_in_words", "speakers", "drop_in_speakers", "units"}


def test_seeds_of_other_clips_are_refused():
    results = results_of([Run("one_shot", TARGET, 1), Run("one_shot", TARGET, 2)])
    results[0]["units"] = results[0]["units"] | {"group_sizes": [50, 60]}
    with pytest.raises(ValueError, match="Results of 100 and of 110 clips or frames"):
        summarize(results)


def test_main_target_has_the_most_rows():
    runs = [
        Run(TEACHER),
        Run("one_shot", 0.3, 1),
        Run("one_shot", 0.5, 1),
        Run("gates", 0.5, 1),
        Run("one_shot", 0.7, 1),
    ]
    summaries = summarize(results_of(runs))
    assert main_target(summaries) == 0.5
    assert main_target(summarize(results_of([run for run in runs if run.row != "gates"]))) == 0.7
    assert main_target(summarize(results_of(runs[:1]))) is None
    assert find_summary(summaries, "gates", 0.5).row == "gates" and find_summary(summaries, "gates", 0.3) is None
