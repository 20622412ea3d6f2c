"""The command of the experiment on one-shot pruning: what it computes, stores, skips and refuses."""

import json

import numpy as np
import pytest

from experiments import one_shot
from experiments.one_shot_students import ROWS, Row, magnitude
from tests.helpers.speech_files import RATE, write


@pytest.fixture
def speech(tmp_path):
    generator = np.random.default_rng(0)
    for index in range(6):
        write(tmp_path / "speech" / f"{index}-1-0.wav", 0.1 * generator.standard_normal(3 * RATE))
    return tmp_path / "speech"


@pytest.fixture
def command(monkeypatch, tmp_path, teacher, speech):
    """A function that runs the command with magnitude pruning in all rows, and returns what was asked of the rows."""
    asked = []

    def noted(folder, targets, clips):
        asked.append((list(targets), tuple(clips.shape)))
        return magnitude(folder, targets, clips)

    monkeypatch.setattr(
        one_shot, "ROWS", {name: Row(row.label, noted, row.uses_audio, row.is_ladder) for name, row in ROWS.items()}
    )

    def start(*arguments):
        asked.clear()
        data = ("--teacher", teacher, "--dataset_name", str(speech), "--crop_seconds", "0.25", "--held_out_every", "3")
        monkeypatch.setattr("sys.argv", ["one_shot", "--output_dir", str(tmp_path / "out"), *data, *arguments])
        one_shot.main()
        return list(asked)

    start.folder = tmp_path / "out"
    return start


def test_results_are_stored_and_not_made_again(command):
    arguments = ("--target_sparsities", "0.5", "0.3", "--stock_target_sparsities", "0.2", "--num_crops", "5")
    rows = ("--rows", "magnitude", "rounds", "stock_shape")
    assert command(*arguments, *rows) == [([0.3, 0.5], (0, 0)), ([0.3, 0.5], (5, 4000)), ([0.2], (5, 4000))]
    raw = command.folder / "raw"
    assert sorted(path.name for path in raw.iterdir()) == [
        "magnitude_0.3.json",
        "magnitude_0.5.json",
        "rounds_0.3_speech_5x0.25s_seed42.json",
        "rounds_0.5_speech_5x0.25s_seed42.json",
        "stock_shape_0.2_speech_5x0.25s_seed42.json",
    ]
    result = json.loads((raw / "rounds_0.3_speech_5x0.25s_seed42.json").read_text())
    assert result["held_out"] == ["0-1-0.wav", "3-1-0.wav"] and result["calibration_seconds"] == 1.25
    assert result["loss"] > 0 and result["sparsity"] == pytest.approx(0.3, abs=0.02)
    assert command(*arguments, *rows) == []
    (raw / "rounds_0.5_speech_5x0.25s_seed42.json").unlink()
    before = (raw / "rounds_0.3_speech_5x0.25s_seed42.json").stat().st_mtime_ns
    assert command(*arguments, *rows) == [([0.3, 0.5], (5, 4000))]
    assert (raw / "rounds_0.3_speech_5x0.25s_seed42.json").stat().st_mtime_ns == before
    assert command("--report_only") == []
    assert "| Student | 20 % removed | 30 % removed | 50 % removed |" in (command.folder / "one_shot.md").read_text()


def test_what_exists_stays_when_a_row_breaks(command, monkeypatch):
    def breaks(folder, targets, clips):
        yield from magnitude(folder, targets[:1], clips)
        raise RuntimeError("broken")

    monkeypatch.setitem(one_shot.ROWS, "rounds", Row("rounds", breaks))
    with pytest.raises(RuntimeError, match="broken"):
        command("--rows", "rounds", "--target_sparsities", "0.3", "0.5")
    assert [path.name for path in (command.folder / "raw").iterdir()] == ["rounds_0.3_speech_200x0.25s_seed42.json"]


def test_other_audio_has_crops_of_its_own(command, tmp_path):
    write(tmp_path / "other" / "a.wav", np.linspace(-1, 1, RATE))
    other = ("--calibration_audio", str(tmp_path / "other"), "--calibration_crop_seconds", "0.125", "--num_crops", "0")
    assert command("--rows", "rounds", "--target_sparsities", "0.3", *other) == [([0.3], (8, 2000))]
    result = json.loads((command.folder / "raw" / "rounds_0.3_other_allx0.125s_seed42.json").read_text())
    assert result["audio"] == "other" and result["held_out"] == ["0-1-0.wav", "3-1-0.wav"]


def test_a_student_of_rounds_depends_on_the_other_targets(command):
    command("--rows", "rounds", "one_round", "--target_sparsities", "0.3")
    assert command("--rows", "one_round", "--target_sparsities", "0.2", "0.3")
    with pytest.raises(ValueError, match=r"rounds_0.3.*`run_ladder` was \[0.3\] and is \[0.2, 0.3\]"):
        command("--rows", "rounds", "--target_sparsities", "0.2", "0.3")


def test_errors_of_the_command(command, monkeypatch):
    with pytest.raises(ValueError, match="no row 'round'"):
        command("--rows", "round")
    command("--rows", "magnitude", "--target_sparsities", "0.3")
    with pytest.raises(ValueError, match="magnitude_0.3.json has other settings: `held_out_every` was 3 and is 2"):
        command("--rows", "magnitude", "--target_sparsities", "0.3", "--held_out_every", "2")
    monkeypatch.setattr("sys.argv", ["one_shot", "--output_dir", str(command.folder / "new"), "--report_only"])
    with pytest.raises(ValueError, match="no results in"):
        one_shot.main()
    monkeypatch.setattr("sys.argv", ["one_shot", "--output_dir", str(command.folder)])
    with pytest.raises(ValueError, match="`--teacher`, `--dataset_name` must be given"):
        one_shot.main()
