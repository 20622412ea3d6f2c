"""The report of the comparison: tables, JSON and pictures."""

import json

import pytest

from experiments import evidence_report
from experiments.compared_students import ROWS, STUDENTS, TEACHER
from experiments.evidence_pictures import COLORS, MARKERS
from experiments.evidence_report import write_report
from experiments.evidence_results import Run, plan_runs
from tests.helpers.evidence_results import TARGET, results_of


def test_report_of_one_size(tmp_path):
    runs = plan_runs(ROWS, [TARGET], [1, 2, 3])
    results = results_of(runs, correct=lambda run: run.seed or 6)
    results[0]["num_parameters"] = 1000
    results[1]["num_parameters"] = 600
    write_report(results, tmp_path)
    text = (tmp_path / "evidence.md").read_text()
    cells = "| from scratch | 500 | 1.00 G | 0.1000 ± 0.0000 | 0.9000 ± 0.0000 | 0.8000 ± 0.0000 | 0.333 ± 0.167 |"
    assert cells in text and "**The sizes differ by" in text
    assert "Differences from the row “teacher”" in text and "Differences from the row “one-shot, trained”" in text
    assert "| from scratch | **−66.7** (" in text and "| from scratch | 0.0 (0.0 to 0.0) |" in text
    assert (tmp_path / "comparison.png").stat().st_size > 1000 and (tmp_path / "layers.png").stat().st_size > 1000
    assert not (tmp_path / "curve.png").exists()
    content = (tmp_path / "evidence.json").read_text()
    summary = json.loads(content)["summaries"][1]
    assert summary["values"]["words"] == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert summary["differences"][TEACHER]["words"]["mean"] == pytest.approx(-4 / 6, abs=1e-5)
    assert "group_sizes" not in content and "outcomes" not in content


def test_a_report_without_teacher_or_students(tmp_path):
    write_report(results_of([Run("gates", TARGET, 1)]), tmp_path)
    assert "Differences from" not in (tmp_path / "evidence.md").read_text()
    write_report(results_of([Run(TEACHER)]), tmp_path / "teacher")
    assert "| teacher | 500 |" in (tmp_path / "teacher" / "evidence.md").read_text()
    assert not (tmp_path / "teacher" / "layers.png").exists()


def test_curves_show_rows_of_several_sizes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(evidence_report, "draw_comparison", lambda rows, differences, path: drawn.append(rows))
    runs = plan_runs(["one_shot", "first_layers", TEACHER], [0.3, TARGET], [1]) + [Run("gates", TARGET, 1)]
    write_report(results_of(runs), tmp_path)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert [summary.row for summary in drawn[0]] == [TEACHER, "one_shot", "first_layers", "gates"]
    assert (tmp_path / "evidence.md").read_text().count("| one-shot, not trained | 500") == 2


def test_every_row_has_a_color_and_a_marker():
    assert COLORS.keys() == MARKERS.keys() == STUDENTS.keys()
    assert len(set(COLORS.values())) == len(COLORS) and len(set(MARKERS.values())) == len(MARKERS)
