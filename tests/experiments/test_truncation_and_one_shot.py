"""The command of truncation and one-shot pruning, and its report."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.result_files import write_json
from experiments import truncation_and_one_shot as experiment
from experiments.truncated_students import TruncatedStudent
from experiments.truncation_and_one_shot_report import find_pairs, load_measured
from hf_prunable import load_prunable, truncate
from tests.helpers.speech_files import RATE, write, write_speech_commands


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Options with folders of speech and of words."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index in range(6):
        write(folder / "speech" / f"{index}.wav", 0.1 * generator.standard_normal(RATE))
    clips = [f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in "abcde" for take in (0, 1)]
    write_speech_commands(folder / "words", clips, ["no/a_nohash_0"], ["no/b_nohash_0"], seconds=0.15)
    return ("--dataset_name", str(folder / "speech"), "--speech_commands", str(folder / "words"))


@pytest.fixture
def run(teacher, data, tmp_path, monkeypatch):
    """A function that runs the command with one chosen depth."""
    choice = {"num_layers": 2, "by_fold": [2, 3], "ties_with_layer_0": 1, "convexity": [0.1, 0.2, 0.3, 0.2]}
    monkeypatch.setattr(experiment, "choose_depth", lambda task, features: choice)

    def start(*arguments):
        options = ("--teacher", teacher, *data, "--crop_seconds", "0.25", "--num_crops", "6")
        command = ["truncation_and_one_shot", "--output_dir", str(tmp_path), *options, *arguments]
        monkeypatch.setattr("sys.argv", command)
        experiment.main()
        return {path.stem: json.loads(path.read_text()) for path in (tmp_path / "raw").iterdir()}

    return start


def test_students_are_made_once_and_compared_at_one_size(run, tmp_path, monkeypatch):
    results = run("--target_sparsities", "0.1", "0.6")
    sizes = {name: result["num_parameters"] for name, result in results.items()}
    (same,) = sizes.keys() - {"teacher", "layers2", "layers2_one_shot_0.6", "one_shot_0.6"}
    assert sizes[same] == pytest.approx(sizes["layers2"], rel=0.02)
    assert sizes["one_shot_0.6"] == pytest.approx(0.4 * sizes["teacher"], rel=0.02)
    assert {name: result["layers"] for name, result in results.items() if name.startswith("layers")} == {
        "layers2": 2,
        "layers2_one_shot_0.6": 2,
    }
    text = (tmp_path / "truncation_and_one_shot.md").read_text()
    assert (
        "| first 2 layers, then one-shot to 40 % | 2 |" in text and "words: 2 (by fold: 2, 3; in 1 of 2 folds," in text
    )
    assert "correct" not in (tmp_path / "truncation_and_one_shot.json").read_text()
    monkeypatch.setattr(experiment.TruncationComparison, "run", None)
    assert run("--target_sparsities", "0.1", "0.6") == results
    with pytest.raises(ValueError, match="one_shot_.* has other settings: `num_crops` was 6 and is 5"):
        run("--num_crops", "5")


def test_one_shot_students_of_the_evidence_are_taken_over(run, teacher, data, tmp_path):
    task = {"accuracy": 0.5, "classes": 2, "correct": "10" * 10, "group_sizes": [4] * 5, "drop_in_correct": "0" * 20}
    values = {"num_parameters": 7, "macs": 8, "machine": "another", "cosine": [1, 1, 1, 1], "loss": 0.1}
    settings = {"teacher": Path(teacher).name, "dataset_name": "speech", "speech_commands": "words"}
    settings |= {"crop_seconds": 0.25, "held_out_every": 5, "num_crops": 6}
    found = tmp_path / "evidence" / "raw" / "one_shot_0.6_seed42.json"
    write_json(found, values | {"settings": settings, "words": task, "speakers": task})
    options = ("--target_sparsities", "0.6", "--evidence", str(tmp_path / "evidence"))
    results = run(*options)
    taken = results["one_shot_0.6"]
    assert taken["num_parameters"] == 7 and taken["machine"] == "another" and taken["layers"] == 3
    assert taken["words"] == {name: task[name] for name in ("accuracy", "classes", "correct", "group_sizes")}
    assert results["layers2_one_shot_0.6"]["num_parameters"] > 7
    (tmp_path / "raw" / "one_shot_0.6.json").unlink()
    write_json(found, values | {"settings": settings | {"num_crops": 5}, "words": task, "speakers": task})
    with pytest.raises(ValueError, match="one_shot_0.6_seed42.json has other settings: `num_crops` was 5 and is 6"):
        run(*options)


def test_students_of_one_size_are_pairs(tmp_path):
    def save(student, size, correct):
        task = {"accuracy": 0.5, "classes": 2, "correct": correct, "group_sizes": [2, 2]}
        values = {"num_layers": student.num_layers, "target_sparsity": student.target_sparsity, "words": task}
        values |= {"speakers": task, "num_parameters": size, "macs": size, "layers": 3}
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / "raw" / f"{student.name}.json").write_text(json.dumps(values))

    same, truncated = TruncatedStudent(None, 0.5), TruncatedStudent(2)
    both, small = TruncatedStudent(2, 0.72), TruncatedStudent(None, 0.72)
    for student, size, correct in (
        (same, 4999, "1111"),
        (truncated, 5000, "1100"),
        (both, 2800, "0000"),
        (small, 2801, "1000"),
        (TruncatedStudent(), 10000, "1111"),
    ):
        save(student, size, correct)
    measured = load_measured(tmp_path)
    assert list(measured) == [TruncatedStudent(), truncated, same, small, both]
    pairs = find_pairs(measured)
    assert [(pair.student, pair.reference) for pair in pairs] == [(same, truncated), (both, small)]
    means = [measured[pair.student].differences(measured[pair.reference])["words"].mean for pair in pairs]
    assert means == [0.5, -0.25]


def test_errors_of_the_command(run, teacher, data, tmp_path):
    with pytest.raises(ValueError, match=r"`num_layers` has \[4\], but the teacher has layers 1 to 3"):
        run("--num_layers", "4")
    truncate(load_prunable(teacher), 2).save_pretrained(tmp_path / "short")
    with pytest.raises(ValueError, match="short' is pruned or truncated"):
        run("--teacher", str(tmp_path / "short"))
    with pytest.raises(ValueError, match="`--teacher`, `--speech_commands` must be given"):
        experiment.TruncationArguments(output_dir="a", dataset_name="b").folders()
