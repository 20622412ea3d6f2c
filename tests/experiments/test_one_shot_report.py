"""The report of one-shot pruning: tables, JSON and pictures."""

import json

import pytest

from experiments.one_shot_pictures import COLORS, TRAINED_COLORS
from experiments.one_shot_report import write_report
from experiments.one_shot_results import Run
from experiments.one_shot_students import ROWS, TEACHER
from experiments.one_shot_summary import TRAINED_ROWS
from hf_prunable.modeling.size import PARAMETERS
from tests.helpers.one_shot_results import result_of, runs_of


def test_report_of_one_amount_of_audio(tmp_path):
    runs = [*runs_of(["rounds"], [0.3, 0.5], seeds=(1, 2)), Run("magnitude", 0.5)]
    write_report([result_of(run, loss=0.1 * (run.seed or 5)) for run in runs], tmp_path)
    text = (tmp_path / "one_shot.md").read_text()
    assert "Calibration: 40 s of speech." in text
    assert "| rounds (default) | 0.1500 ± 0.0707 | 0.1500 ± 0.0707 | 2 |" in text
    assert "| largest weights, uniform widths | – | 0.5000 | – |" in text
    assert "experiment `evidence`" not in text and "by calibration audio" not in text
    assert "| 30 % | 700 | 1.00 G | 0.9500 | 0.9000 |" in text
    assert (tmp_path / "sizes.png").stat().st_size > 1000 and not (tmp_path / "audio.png").exists()
    values = json.loads((tmp_path / "one_shot.json").read_text())
    assert values["held_out"] == ["a.flac", "b.flac"] and len(values["results"]) == 5
    assert values["results"][0]["loss"] == pytest.approx(0.1)


def test_report_with_more_audio_and_trained_students(tmp_path):
    runs = runs_of(["rounds", "one_round"], [0.5])
    results = [result_of(run, remark="Shared.") for run in runs]
    results.append(result_of(Run(TEACHER, 0.0), loss=0.0))
    results += [result_of(run) for run in runs_of(["rounds"], [0.5], draw=("words", 3, 1.0))]
    summary = {"target_sparsity": 0.5, "seeds": [1], "num_parameters": 500.0, "values": {"loss": [0.3]}}
    trained = tmp_path / "evidence.json"
    trained.write_text(json.dumps({"summaries": [{"row": row, **summary} for row in TRAINED_ROWS]}))
    write_report(results, tmp_path, str(trained))
    text = (tmp_path / "one_shot.md").read_text()
    assert "| 3 s of words | 0.1000 | 1 |" in text and "| gates as in the paper | 0.3000 | 1 |" in text
    assert "teacher |" not in text
    assert "experiment `evidence`" in text and "Machine: CPU. Shared.; CPU" in text
    assert (tmp_path / "audio.png").stat().st_size > 1000


def test_targets_in_multiply_accumulates_have_a_table_of_their_own(tmp_path):
    runs = [*runs_of(["rounds"], [0.3]), *runs_of(["macs", "macs_channels"], [0.5])]
    write_report([result_of(run) for run in runs], tmp_path)
    text = (tmp_path / "one_shot.md").read_text()
    by_size, by_macs = text.split("## Loss by multiply-accumulates")
    assert "with channels" not in by_size and "50 % removed" not in by_size
    assert "| with channels | 0.1000 | 1 |" in by_macs and "| without channels | 0.1000 | 1 |" in by_macs


def test_every_row_has_a_color():
    by_parameters = {name for name, row in ROWS.items() if row.measure == PARAMETERS}
    assert COLORS.keys() == by_parameters - {TEACHER} and TRAINED_COLORS.keys() == set(TRAINED_ROWS)
