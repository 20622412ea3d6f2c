"""The report of the comparison: table, JSON and pictures."""

import json

import pytest

from experiments import evidence_report
from experiments.compared_students import ROWS, TEACHER
from experiments.evidence_report import write_report
from experiments.evidence_results import Run, plan_runs
from tests.helpers.evidence_results import TARGET, results_of


def test_report_of_one_size(tmp_path):
    runs = plan_runs(ROWS, [TARGET], [1, 2, 3])
    results = results_of(runs, accuracy=lambda run: 0.1 * (run.seed or 5))
    results[0]["num_parameters"] = 1000
    results[1]["num_parameters"] = 600
    write_report(results, tmp_path)
    text = (tmp_path / "evidence.md").read_text()
    assert "| from scratch | 500 | 1.00 G | 0.1000 ± 0.0000 | 0.200 ± 0.100 |" in text
    assert "**The sizes differ by" in text
    assert "one session per speaker" in text
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert not (tmp_path / "curve.png").exists()
    summary = json.loads((tmp_path / "evidence.json").read_text())["summaries"][1]
    assert summary["values"]["words"] == pytest.approx([0.1, 0.2, 0.3])


def test_curves_show_rows_of_several_sizes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(evidence_report, "draw_comparison", lambda rows, columns, path: drawn.append(rows))
    runs = plan_runs(["learned", "first_layers", TEACHER], [0.3, TARGET], [1]) + [Run("one_stage", TARGET, 1)]
    results = results_of(runs)
    write_report(results, tmp_path)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert [summary.row for summary in drawn[0]] == [TEACHER, "learned", "one_stage", "first_layers"]
    assert (tmp_path / "evidence.md").read_text().count("| learned |") == 2
