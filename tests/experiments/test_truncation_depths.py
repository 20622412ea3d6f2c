"""Table and picture of the accuracy at every depth."""

import json

from matplotlib.image import imread

from experiments import truncation_depths
from experiments.truncation_depths import draw_depths, format_depths
from hf_prunable.finetuning.classifier import FinetunedResult
from hf_prunable.truncation.layer_choice import LayerChoice
from tests.helpers.layer_profiles import complete_profile, profile


def result(num_layers, accuracy):
    metrics = {"accuracy": accuracy, "accuracy_lower": accuracy - 0.05, "accuracy_upper": accuracy + 0.04}
    return FinetunedResult(num_layers, 42, metrics, [], 2.0, 1.5 * num_layers, [])


def test_depths_side_by_side(tmp_path):
    results = [result(1, 0.5), result(2, 0.8), result(3, 0.75)]
    choices = {
        "convexity": LayerChoice(2, "convexity"),
        "cka": LayerChoice(3, "cka"),
        "probe": LayerChoice(3, "probe"),
    }
    lines = format_depths(results, choices).splitlines()
    assert lines[2:] == [
        "| 1 | 0.5000 (0.4500 to 0.5400) | 1.5 |  |",
        "| 2 | 0.8000 (0.7500 to 0.8400) | 3.0 | convexity, (best) |",
        "| 3 | 0.7500 (0.7000 to 0.7900) | 4.5 | cka, probe |",
    ]
    draw_depths(profile([0.2, 0.4, 0.6, 0.5]), results, choices, tmp_path / "depths.png")
    assert imread(tmp_path / "depths.png").std() > 0.03


def test_predictions_and_histories_are_kept_apart(tmp_path, monkeypatch):
    scores = complete_profile([0.2, 0.4, 0.6])
    results = [result(1, 0.5), result(2, 0.8)]
    monkeypatch.setattr(truncation_depths, "fine_tune_depths", lambda options, training: (scores, results))
    command = f"depths --model_name_or_path models/a --dataset_name clips --output_dir {tmp_path}"
    monkeypatch.setattr("sys.argv", [*command.split(), "--use_cpu", "--report_to", "none"])
    truncation_depths.main()
    summary, raw = (json.loads((tmp_path / name).read_text()) for name in ("depths.json", "raw/depths.json"))
    assert raw["results"][1]["predictions"] == raw["results"][1]["history"] == []
    assert summary["results"][1].keys() == raw["results"][1].keys() - {"predictions", "history"}
    assert summary["results"][1]["metrics"] == raw["results"][1]["metrics"]
    labels = summary["profile"]["labels"]["word"]
    assert labels["convexity"].keys() == {"values", "standard_errors"} and "permuted_convexity" not in labels
    assert summary["choices"] == raw["choices"] and summary["choices"]["convexity"]["num_layers"] == 2
    assert (tmp_path / "depths.md").read_text().count("\n") == 4 and (tmp_path / "depths.png").exists()
