"""hf-prunable prune --method one_shot and magnitude: whole runs, interruptions, several processes."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from matplotlib.image import imread
from safetensors.torch import load_file
from transformers import AutoModel, Wav2Vec2FeatureExtractor, WavLMModel

from hf_prunable import PrunableWavLMModel
from tests.helpers.processes import helper_command, with_root
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_inputs, tiny_stock


FILES = {
    "README.md",
    "config.json",
    "fidelity.png",
    "model.safetensors",
    "modeling_hf_prunable.py",
    "preprocessor_config.json",
    "pruning_report.json",
    "shape.png",
}
COMMON = {
    "output_dir": "pruned",
    "target_sparsity": [0.3, 0.5],
    "crop_seconds": 0.05,
    "min_seconds": 0.05,
    "held_out_fraction": 0.3,
    "latency_seconds": 0.2,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": 11,
}
ONE_SHOT = {
    "method": "one_shot",
    "calibration_clips": 8,
    "calibration_seconds": 0.045,
    "rounds": 3,
    "reconstruction_steps": 2,
}
TARGETS = ("sparsity-0.3", "sparsity-0.5")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, and audio of which one clip is shorter than a crop."""
    place = tmp_path_factory.mktemp("place")
    tiny_stock("wavlm", conv_stride=(5, 2, 2), mask_time_prob=0.0, mask_feature_prob=0.0).save_pretrained(
        place / "dense"
    )
    Wav2Vec2FeatureExtractor().save_pretrained(place / "dense")
    noise = 0.1 * np.random.default_rng(0).standard_normal((12, RATE // 10))
    for number, samples in enumerate(noise):
        write(place / "audio" / f"{number:02}.wav", samples[: len(samples) - 20 * number])
    return place


def start(place, folder, kill=None, num_processes=1, **options):
    """Starts a run in a folder; returns the finished process."""
    folder.mkdir(exist_ok=True, parents=True)
    sources = {"model_name_or_path": str(place / "dense"), "dataset_name": str(place / "audio")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**COMMON, **sources, **options}))
    command = [*helper_command("killed_run"), "recipe.yaml", json.dumps(kill or {})]
    if num_processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
        command = [sys.executable, *launcher, "-m", "hf_prunable.cli.prune", "recipe.yaml"]
    environment = {**with_root(), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def one_shot(place, tmp_path_factory):
    """A run for two targets without training; its folder and its log."""
    folder = tmp_path_factory.mktemp("one_shot")
    done = start(place, folder, **ONE_SHOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "pruned", done.stderr


def read_report(folder):
    return json.loads((folder / "pruning_report.json").read_text())


def read_weights(folder):
    return {target: load_file(folder / target / "model.safetensors") for target in TARGETS}


def assert_equal(found, expected):
    for target, weights in found.items():
        assert weights.keys() == expected[target].keys()
        assert all(torch.equal(tensor, expected[target][name]) for name, tensor in weights.items())


def test_folders_are_complete(one_shot):
    folder, log = one_shot
    assert {path.name for path in folder.iterdir()} == set(TARGETS)
    assert {path.name for path in folder.parent.iterdir()} == {"pruned", "recipe.yaml"}
    for target in TARGETS:
        assert {path.name for path in (folder / target).iterdir()} == FILES | {"prices.png"}
        assert imread(folder / target / "prices.png").std() > 0.05
        model, info = AutoModel.from_pretrained(folder / target, output_loading_info=True)
        assert isinstance(model, PrunableWavLMModel) and not any(info.values())
        assert model.eval()(tiny_inputs()["input_values"]).last_hidden_state.isfinite().all()
    assert "Stage 1: one-shot pruning in 3 rounds, with statistics of 8 clips of 0.045 s\nAudio:" in log
    assert "Round 1 of 3: from 100.0% to " in log and "Round 3 of 3: " in log and "No GPU" not in log


def test_the_report_of_a_run_without_training(one_shot):
    folder, _ = one_shot
    for target, num_rounds in zip(TARGETS, (1, 3), strict=True):
        report = read_report(folder / target)
        inputs, results = report["inputs"], report["results"]
        assert (inputs["method"], inputs["steps"], inputs["units"]) == ("one_shot", {}, ["qk", "vo", "int"])
        assert inputs["calibration"]["num_crops"] == 8 and inputs["calibration"]["seconds"] == 0.045
        assert inputs["calibration"]["num_clips"] == 8 and inputs["calibration"]["num_too_short"] == 0
        assert len(results["rounds"]) == num_rounds and results["rounds"][-1]["sparsity"] >= float(target[-3:])
        assert results["held_out_loss"] is None and results["gate_sparsity"] is None and not results["history"]
        assert 0.9 < results["fidelity"]["cosine"][3] < 1


def test_the_card_says_what_was_done_and_nothing_of_gates(one_shot):
    folder, _ = one_shot
    card = ModelCard.load(folder / TARGETS[1] / "README.md")
    text = " ".join(card.text.split())
    for part in (
        "removed by one-shot pruning with hf_prunable: statistics of 8 clips of 0.045 s chose the units and refitted",
        "The pruned model was not trained.",
        "- One-shot pruning of qk, vo, int; seed 11.",
        "- Calibration audio: 8 crops of 0.045 s from 8 training clips.",
        "- Sparsity after each round: 1",
        "- All measurements: ",
        "(prices.png)",
    ):
        assert part in text, part
    for part in ("gates", "Gates", "projections", "learned", "sparsity_curve", "Training log", "arXiv", "Citation"):
        assert part not in text, part
    assert [result.metric_type for result in card.data.eval_results] == ["cosine_similarity"]


@pytest.mark.parametrize("kill", [{"cut": 2}, {"save": 2}, {"cut": 3}], ids=str)
def test_a_run_goes_on_after_a_kill(place, one_shot, tmp_path, kill):
    killed = start(place, tmp_path / "run", kill, **ONE_SHOT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    done = start(place, tmp_path / "run", **ONE_SHOT)
    assert done.returncode == 0, done.stderr[-3000:]
    num_finished = 2 if kill == {"cut": 3} else 1
    assert f"Going on after round {num_finished} of 3." in done.stderr
    assert_equal(read_weights(tmp_path / "run" / "pruned"), read_weights(one_shot[0]))
    rounds, expected = (
        read_report(folder / TARGETS[1])["results"]["rounds"] for folder in (tmp_path / "run/pruned", one_shot[0])
    )
    assert rounds == expected
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"pruned", "recipe.yaml"}


def test_settings_of_an_interrupted_run_are_compared(place, tmp_path):
    assert start(place, tmp_path, {"cut": 2}, **ONE_SHOT).returncode == -signal.SIGKILL
    settings = json.loads((tmp_path / "pruned.partial" / "settings.json").read_text())
    assert settings["calibration_clips"] == 8 and settings["final_steps"] == 0 and settings["method"] == "one_shot"
    assert not {"max_steps", "ste", "gate_learning_rate"} & settings.keys()
    refused = start(place, tmp_path, **ONE_SHOT | {"calibration_clips": 7})
    assert refused.returncode == 2
    assert "`calibration_clips` was 8 and is 7" in refused.stderr.splitlines()[-1]


def test_two_processes_are_one(place, one_shot, tmp_path):
    done = start(place, tmp_path, num_processes=2, **ONE_SHOT)
    assert done.returncode == 0, done.stderr[-4000:]
    for target in TARGETS:
        found, expected = (
            read_report(folder / target)["sizes"]["shape"] for folder in (tmp_path / "pruned", one_shot[0])
        )
        assert found == expected
    for target, weights in read_weights(tmp_path / "pruned").items():
        for name, tensor in read_weights(one_shot[0])[target].items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_training_goes_on_from_the_pruned_model(place, one_shot, tmp_path):
    done = start(place, tmp_path, **ONE_SHOT, final_steps=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Stage 3: train the pruned model at a target of 0.5, 2 steps of 2 clips" in done.stderr
    for target, weights in read_weights(tmp_path / "pruned").items():
        report = read_report(tmp_path / "pruned" / target)
        assert report["inputs"]["steps"] == {"after pruning": 2}
        assert [(entry["stage"], entry["step"]) for entry in report["results"]["history"]] == [(2, 1), (2, 2)]
        losses = report["results"]["held_out_loss"]
        assert losses["dense"] < 1e-5 < losses["after_compaction"] != losses["after_final_steps"]
        # The rounds go on from the model before its training.
        assert report["sizes"]["shape"] == read_report(one_shot[0] / target)["sizes"]["shape"]
        assert any(not tensor.equal(read_weights(one_shot[0])[target][name]) for name, tensor in weights.items())
        card = (tmp_path / "pruned" / target / "README.md").read_text()
        assert "The pruned model was then trained by distillation, without labels." in card
        assert "; 2 steps after pruning; seed 11." in card and "held-out audio, after pruning |" in card
        assert "sparsity_curve" not in card


def test_a_stock_checkpoint(place, tmp_path):
    done = start(place, tmp_path, **ONE_SHOT | {"stock_shape": True, "target_sparsity": 0.1})
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "pruned"
    model = AutoModel.from_pretrained(folder)
    assert type(model) is WavLMModel and model.config.intermediate_size < 40
    assert "This is a standard transformers checkpoint" in (folder / "README.md").read_text()
    assert not (folder / "prices.png").exists()


def test_magnitude(place, tmp_path):
    done = start(place, tmp_path, method="magnitude")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Stage 1: keep the units with the largest weights, with equal widths in all layers\nAudio:" in done.stderr
    for target in TARGETS:
        folder = tmp_path / "pruned" / target
        assert {path.name for path in folder.iterdir()} == FILES
        report = read_report(folder)
        assert report["inputs"]["method"] == "magnitude" and report["inputs"]["calibration"] is None
        assert report["sizes"]["met_sparsity"] >= float(target[-3:]) and not report["results"]["rounds"]
        text = " ".join((folder / "README.md").read_text().split())
        assert "removed by magnitude pruning with hf_prunable: all layers have the same widths" in text
        assert "- Uniform widths of qk, vo, int; seed 11." in text
        assert not any(
            part in text for part in ("gates", "Gates", "projections", "learned", "sparsity_curve", "arXiv")
        )
