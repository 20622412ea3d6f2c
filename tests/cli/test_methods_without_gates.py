"""hf-prunable prune --method one_shot and magnitude: whole runs, interruptions, several processes."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from matplotlib.image import imread
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Wav2Vec2FeatureExtractor, WavLMModel

from hf_prunable import PrunableWavLMModel
from hf_prunable.cli.prune import make_parser, prune
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


def run(place, folder, **options):
    """Runs in this process; returns the folder of the result."""
    sources = {"model_name_or_path": str(place / "dense"), "dataset_name": str(place / "audio")}
    values = {**COMMON, **sources, **options, "output_dir": str(folder / "pruned")}
    kinds = make_parser().dataclass_types
    parts = [{name: values.pop(name) for name in kind.__dataclass_fields__ if name in values} for kind in kinds]
    assert not values
    return prune(*(kind(**part) for kind, part in zip(kinds, parts, strict=True)))


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
    for target, num_rounds in zip(TARGETS, (2, 3), strict=True):
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


def assert_goes_on(place, one_shot, folder, num_finished):
    done = start(place, folder, **ONE_SHOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Going on after round {num_finished} of 3." in done.stderr
    assert_equal(read_weights(folder / "pruned"), read_weights(one_shot[0]))
    rounds, expected = (
        read_report(path / TARGETS[1])["results"]["rounds"] for path in (folder / "pruned", one_shot[0])
    )
    assert rounds == expected
    assert {path.name for path in folder.iterdir()} == {"pruned", "recipe.yaml"}


def test_a_run_goes_on_after_a_kill(place, one_shot, tmp_path):
    killed = start(place, tmp_path, {"cut": 2}, **ONE_SHOT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    settings = json.loads((tmp_path / "pruned.partial" / "settings.json").read_text())
    assert settings["calibration_clips"] == 8 and settings["final_steps"] == 0 and settings["method"] == "one_shot"
    assert not {"max_steps", "ste", "gate_learning_rate"} & settings.keys()
    refused = start(place, tmp_path, **ONE_SHOT | {"calibration_clips": 7})
    assert refused.returncode == 2
    assert "`calibration_clips` was 8 and is 7" in refused.stderr.splitlines()[-1]
    assert_goes_on(place, one_shot, tmp_path, num_finished=1)


@pytest.mark.slow
@pytest.mark.parametrize("kill, num_finished", [({"save": 2}, 1), ({"cut": 3}, 2)])
def test_a_run_goes_on_after_other_kills(place, one_shot, tmp_path, kill, num_finished):
    killed = start(place, tmp_path, kill, **ONE_SHOT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert_goes_on(place, one_shot, tmp_path, num_finished)


@pytest.mark.slow
def test_a_final_stage_that_was_killed_goes_on(place, tmp_path):
    options = ONE_SHOT | {"final_steps": 4, "save_steps": 1, "target_sparsity": [0.3, 0.5]}
    whole = start(place, tmp_path / "whole", **options)
    assert whole.returncode == 0, whole.stderr[-3000:]
    killed = start(place, tmp_path / "run", {"micro_batch": 7, "delay": 0.0}, **options)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    done = start(place, tmp_path / "run", **options)
    assert done.returncode == 0 and "Going on after round 3 of 3." in done.stderr, done.stderr[-3000:]
    assert_equal(read_weights(tmp_path / "run" / "pruned"), read_weights(tmp_path / "whole" / "pruned"))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 2])
def test_two_processes_are_one(place, tmp_path, steps):
    options = ONE_SHOT | {"reconstruction_steps": steps, "target_sparsity": 0.5}
    one, two = (tmp_path / name / "pruned" for name in ("one", "two"))
    for num_processes, folder in enumerate((one, two), start=1):
        done = start(place, folder.parent, num_processes=num_processes, **options)
        assert done.returncode == 0, done.stderr[-4000:]
    reports = [read_report(folder) for folder in (one, two)]
    assert reports[0]["sizes"]["shape"] == reports[1]["sizes"]["shape"]
    weights, expected = (load_file(folder / "model.safetensors") for folder in (two, one))
    # Adam's first steps turn the last bits of a gradient near 0 into steps of the whole learning rate.
    tolerance = 1e-5 if steps == 0 else 1e-3
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=tolerance, msg=name)


FIDELITY = {name: value for name, value in ONE_SHOT.items() if name != "rounds"} | {
    "target_sparsity": None,
    "target_loss": 0.015,
}


@pytest.fixture(scope="module")
def by_fidelity(place, tmp_path_factory):
    """The folder of a run to a target by fidelity."""
    return run(place, tmp_path_factory.mktemp("by_fidelity"), **FIDELITY)


def test_report_table_and_card_say_what_was_asked_met_and_found(by_fidelity):
    report = read_report(by_fidelity)
    found, sizes = report["results"]["found_size"], report["sizes"]
    assert found["target"] == {"max_loss": 0.015, "min_similarity": None} and sizes["target_sparsity"] is None
    assert found["met"] == report["results"]["fidelity"]["distillation_loss"] <= 0.015 < found["one_more"]
    assert found["sparsity"] == sizes["met_sparsity"] == report["results"]["rounds"][-1]["sparsity"] > 0.1
    assert found["num_candidates"] > 1
    card = " ".join((by_fidelity / "README.md").read_text().split())
    for part in (
        "| Distillation loss, held-out audio: target | | at most 0.015 | |",
        f"| Distillation loss, held-out audio: met by pruning | | {found['met']:.6g} | |",
        f"| Distillation loss, held-out audio: with one removal more | | {found['one_more']:.6g} | |",
        "- Asked for the smallest model with a distillation loss of at most 0.015 on held-out audio: with ",
        f"removed, it is {found['met']:.6g}, measured. With one removal more, it is {found['one_more']:.6g}. "
        f"Models pruned and measured: {found['num_candidates']}.",
    ):
        assert part in card, part
    assert "Target sparsity" not in card


@pytest.mark.parametrize("kill", [pytest.param({"cut": 4}), pytest.param({"save": 1}, marks=pytest.mark.slow)])
def test_a_search_goes_on_after_a_kill(place, by_fidelity, tmp_path, kill):
    killed = start(place, tmp_path, kill, **FIDELITY)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    done = start(place, tmp_path, **FIDELITY)
    assert done.returncode == 0, done.stderr[-3000:]
    weights, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "pruned", by_fidelity))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    results, others = (read_report(folder)["results"] for folder in (tmp_path / "pruned", by_fidelity))
    assert results["found_size"] == others["found_size"] and results["rounds"] == others["rounds"]


def test_a_target_by_fidelity_out_of_reach_is_one_line(place, tmp_path):
    tiny_stock("wavlm", seed=5, conv_stride=(5, 2, 2)).save_pretrained(tmp_path / "other")
    done = start(place, tmp_path, **FIDELITY, teacher_name_or_path=str(tmp_path / "other"))
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.splitlines()[-1]
    assert "`target_loss` asks for a distillation loss of at most 0.015, but before anything is removed" in last
    assert {path.name for path in tmp_path.iterdir()} == {"other", "recipe.yaml"}


@pytest.mark.slow
def test_a_search_in_two_processes_with_training_after_it(place, tmp_path):
    options = FIDELITY | {"final_steps": 2}
    done = start(place, tmp_path, num_processes=2, **options)
    assert done.returncode == 0, done.stderr[-4000:]
    found = read_report(tmp_path / "pruned")["results"]["found_size"]
    assert found["met"] <= 0.015 < found["one_more"]


def test_training_goes_on_from_the_pruned_model(place, tmp_path):
    folder = run(place, tmp_path, **ONE_SHOT | {"target_sparsity": [0.5], "rounds": 1, "final_steps": 2})
    report = read_report(folder)
    assert report["inputs"]["steps"] == {"after pruning": 2}
    assert [(entry["stage"], entry["step"]) for entry in report["results"]["history"]] == [(2, 1), (2, 2)]
    losses = report["results"]["held_out_loss"]
    assert losses["dense"] < 1e-5 < losses["after_compaction"] != losses["after_final_steps"]
    card = (folder / "README.md").read_text()
    assert "The pruned model was then trained by distillation, without labels." in card
    assert "; 2 steps after pruning; seed 11." in card and "held-out audio, after pruning |" in card
    assert "sparsity_curve" not in card


def test_a_stock_checkpoint(place, tmp_path):
    folder = run(place, tmp_path, **ONE_SHOT | {"stock_shape": True, "target_sparsity": [0.1]})
    model = AutoModel.from_pretrained(folder)
    assert type(model) is WavLMModel and model.config.intermediate_size < 40
    card = " ".join((folder / "README.md").read_text().split())
    assert "This is a standard transformers checkpoint" in card and "One-shot pruning of int; seed 11." in card
    assert "The widths are `intermediate_size` and `conv_dim` in `config.json`." in card
    assert "widths vary was not measured for this model" in card and "widths that vary |" not in card
    assert not (folder / "prices.png").exists()
    report = read_report(folder)
    assert report["inputs"]["stock_shape"] is True and report["results"]["ragged"] is None


def test_a_stock_shape_beside_a_ragged_one(place, tmp_path):
    options = {"stock_shape": True, "compare_ragged": True, "target_sparsity": [0.1, 0.15]}
    folder = run(place, tmp_path, **ONE_SHOT | options)
    losses = []
    for target in ("sparsity-0.1", "sparsity-0.15"):
        report = read_report(folder / target)
        ragged, pruned = report["results"]["ragged"], report["sizes"]["pruned"]
        assert pruned["num_parameters"] - 200 < ragged["size"]["num_parameters"] <= pruned["num_parameters"]
        losses.append(ragged["fidelity"]["distillation_loss"])
        card = (folder / target / "README.md").read_text()
        assert "whose widths vary between heads and layers was pruned with the same audio" in card
        fidelity = report["results"]["fidelity"]
        row = f"{fidelity['distillation_loss']:.4f} | {losses[-1]:.4f} |"
        assert f"| Distillation loss without a projection | {row}" in card
        assert "was not measured for this model" not in card
        assert type(AutoModel.from_pretrained(folder / target)) is WavLMModel
    assert 0 < losses[0] < losses[1]


def test_magnitude_with_a_stock_shape(place, tmp_path):
    folder = run(place, tmp_path, method="magnitude", stock_shape=True, target_sparsity=[0.1])
    model = AutoModel.from_pretrained(folder)
    assert type(model) is WavLMModel and model.config.intermediate_size < 40
    assert {path.name for path in folder.iterdir()} == FILES - {"modeling_hf_prunable.py"}
    assert "- Uniform widths of int; seed 11." in (folder / "README.md").read_text()


def test_gates_with_a_stock_shape(place, tmp_path):
    options = {"max_steps": 2, "final_steps": 1, "stock_shape": True, "target_sparsity": [0.1, 0.15]}
    folder = run(place, tmp_path, method="gates", **options)
    for target in ("sparsity-0.1", "sparsity-0.15"):
        model, report = AutoModel.from_pretrained(folder / target), read_report(folder / target)
        assert type(model) is WavLMModel and model.config.intermediate_size < 40
        assert report["sizes"]["met_sparsity"] >= float(target.removeprefix("sparsity-"))
        assert (
            "Gates on int; 2 steps with gates, 1 steps after compaction" in (folder / target / "README.md").read_text()
        )


def test_magnitude(place, tmp_path):
    folder = run(place, tmp_path, method="magnitude", target_sparsity=[0.5])
    assert {path.name for path in folder.iterdir()} == FILES
    report = read_report(folder)
    assert report["inputs"]["method"] == "magnitude" and report["inputs"]["calibration"] is None
    assert report["sizes"]["met_sparsity"] >= 0.5 and not report["results"]["rounds"]
    # Without the command, which is that of these tests.
    text = " ".join((folder / "README.md").read_text().replace(report["inputs"]["command"], "").split())
    assert "removed by magnitude pruning with hf_prunable: all layers have the same widths" in text
    assert "- Uniform widths of qk, vo, int; seed 11." in text
    assert not any(part in text for part in ("gates", "Gates", "projections", "learned", "sparsity_curve", "arXiv"))


@pytest.mark.parametrize("method", ["one_shot", "magnitude"])
def test_weights_that_are_not_finite_stop_the_run(place, tmp_path, method):
    shutil.copytree(place / "dense", tmp_path / "dense")
    weights = load_file(tmp_path / "dense" / "model.safetensors")
    weights["encoder.layers.2.final_layer_norm.bias"][3] = float("nan")
    save_file(weights, tmp_path / "dense" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "audio").symlink_to(place / "audio")
    options = ONE_SHOT if method == "one_shot" else {"method": method}
    with pytest.raises(FloatingPointError, match="Check the checkpoints"):
        run(tmp_path, tmp_path, **options)
    assert not (tmp_path / "pruned").exists()
