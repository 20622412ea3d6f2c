"""The command of the comparison: which students it makes, and what it skips or refuses."""

import json

import numpy as np
import pytest

from experiments import evidence
from experiments.evidence_results import Run
from tests.helpers.evidence_results import result_of
from tests.helpers.speech_files import RATE, write, write_speech_commands


DATA = ("--teacher", "models/a", "--dataset_name", "b", "--speech_commands", "c")


@pytest.fixture
def comparison(monkeypatch, tmp_path):
    """A function that runs the command with invented results and returns the names of its students."""
    made = []

    class FakeComparison:
        def __init__(self, options):
            pass

        def run(self, run, training, model_folder):
            made.append(run.name)
            return result_of(run, correct=len(made) % 6)

    reported = []
    monkeypatch.setattr(evidence, "Comparison", FakeComparison)
    monkeypatch.setattr(evidence, "write_report", lambda results, folder: reported.append((len(results), folder)))

    def start(*arguments):
        made.clear()
        command = ["evidence", "--output_dir", str(tmp_path / "evidence"), *arguments]
        monkeypatch.setattr("sys.argv", [*command, "--max_steps", "6", "--final_steps", "3"])
        evidence.main()
        return list(made)

    start.folder, start.reported = tmp_path / "evidence", reported
    return start


def test_finished_results_are_not_made_again(comparison):
    rows = ("--rows", "gates", "teacher", "first_layers", "--seeds", "1", "2")
    names = ["teacher", *(f"{row}_0.72_seed{seed}" for seed in (1, 2) for row in ("gates", "first_layers"))]
    assert comparison(*DATA, *rows) == names
    assert comparison(*DATA, *rows) == []
    (comparison.folder / "raw" / "gates_0.72_seed2.json").unlink()
    assert comparison(*DATA, *rows) == ["gates_0.72_seed2"]
    assert comparison(*DATA, *rows, "--target_sparsities", "0.5", "0.72") == [
        f"{row}_0.5_seed{seed}" for seed in (1, 2) for row in ("gates", "first_layers")
    ]
    assert comparison("--report_only") == []
    assert comparison.reported == [(number, comparison.folder) for number in (5, 5, 5, 9, 9)]


def test_results_of_other_settings_are_named(comparison):
    comparison(*DATA, "--rows", "gates", "first_layers", "one_shot", "teacher")
    with pytest.raises(ValueError, match=r"gates_0.72_seed42.json .*`gate_learning_rate` was 6.0 and is 0.5\. "):
        comparison(*DATA, "--rows", "gates", "--gate_learning_rate", "0.5")
    # A row depends neither on options of other rows nor on the parent folder of the data.
    assert comparison(*DATA, "--rows", "first_layers", "--gate_learning_rate", "0.5", "--num_crops", "7") == []
    assert comparison(*DATA, "--rows", "one_shot", "--ungated_learning_rate", "0.5") == []
    assert comparison(*DATA, "--rows", "teacher", "--num_crops", "7", "--train_crop_seconds", "1") == []
    assert comparison(*DATA, "--rows", "gates", "--dataset_name", "elsewhere/b") == []
    for row, option in (
        ("one_shot", "num_crops"),
        ("first_layers", "train_crop_seconds"),
        ("teacher", "crop_seconds"),
    ):
        with pytest.raises(ValueError, match=f"`{option}` was .* and is 1"):
            comparison(*DATA, "--rows", row, f"--{option}", "1")
    with pytest.raises(ValueError, match="`teacher` was 'a' and is 'z'"):
        comparison(*DATA, "--rows", "gates", "--teacher", "z")


def test_students_are_made_trained_and_measured(teacher, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    for index in range(6):
        write(tmp_path / "speech" / f"{index}.wav", 0.1 * generator.standard_normal(RATE))
    clips = [f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in "abcde" for take in (0, 1)]
    write_speech_commands(tmp_path / "words", clips, ["no/a_nohash_0"], ["no/b_nohash_0"], seconds=0.15)
    options = ("--teacher", teacher, "--dataset_name", str(tmp_path / "speech"), "--target_sparsities", "0.5")
    options += ("--speech_commands", str(tmp_path / "words"), "--output_dir", str(tmp_path / "out"))
    options += ("--crop_seconds", "0.25", "--train_crop_seconds", "0.1", "--num_crops", "6", "--max_steps", "2")
    options += ("--final_steps", "2", "--per_device_train_batch_size", "2", "--use_cpu", "--logging_steps", "1")
    rows = ("one_shot", "one_shot_trained", "gates_paper", "first_layers", "teacher")
    monkeypatch.setattr("sys.argv", ["evidence", *options, "--rows", *rows])
    evidence.main()
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out" / "raw").iterdir()}
    assert found.keys() == {"teacher", *(f"{row}_0.5_seed42" for row in rows[:-1])}
    for name, result in found.items():
        assert name == "teacher" or result["sparsity"] == pytest.approx(0.5, abs=0.02)
        assert name == "teacher" or (tmp_path / "out" / "models" / name / "model.safetensors").exists()
        assert len(result["words"]["correct"]) == 20
    steps = [[entry["step"] for entry in found[f"{row}_0.5_seed42"]["history"]] for row in rows[1:3]]
    assert steps[0][-1] == 4 and steps[1][-1] == 2
    before = found["one_shot_trained_0.5_seed42"]["before_final_steps"]
    assert before["loss"] == pytest.approx(found["one_shot_0.5_seed42"]["loss"])
    assert "history" not in found["one_shot_0.5_seed42"]
    text = (tmp_path / "out" / "evidence.md").read_text()
    assert "| gates as in the paper |" in text and "shared" in text


def test_errors_of_the_command(comparison, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no row 'learned'; choose from one_shot, .*teacher"):
        comparison(*DATA, "--rows", "learned")
    with pytest.raises(ValueError, match="no results in .*evidence"):
        comparison("--report_only")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="`--dataset_name`, `--speech_commands` must be given"):
        evidence.Comparison(evidence.EvidenceArguments(teacher="models/a"))


def test_a_run_has_a_name_of_its_own():
    assert Run("gates", 0.72, 1).name == "gates_0.72_seed1" and Run("teacher").name == "teacher"
