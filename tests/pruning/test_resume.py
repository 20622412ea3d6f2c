"""A run that is killed and started again ends like one that was not."""

import json
import random
import signal
import subprocess

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Wav2Vec2FeatureExtractor

from tests.helpers.processes import helper_command, with_root
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_stock
from tests.helpers.training_logs import losses_of


STEPS = {1: 120, 2: 80}
RECIPE = {
    "output_dir": "pruned",
    "target_sparsity": 0.4,
    "crop_seconds": 0.05,
    "min_seconds": 0.05,
    "held_out_fraction": 0.3,
    "latency_seconds": 0.2,
    "max_steps": STEPS[1],
    "final_steps": STEPS[2],
    "gate_learning_rate": 0.3,
    "multiplier_learning_rate": 0.1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    # A mean over several steps begins anew where a run goes on.
    "logging_steps": 1,
    "save_steps": 7,
    "save_total_limit": 2,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, audio, and what the run ends with when nothing happens to it."""
    place = tmp_path_factory.mktemp("resume")
    tiny_stock("wavlm").save_pretrained(place / "dense")
    Wav2Vec2FeatureExtractor().save_pretrained(place / "dense")
    noise = 0.1 * np.random.default_rng(0).standard_normal((9, RATE // 10))
    for number, samples in enumerate(noise):
        write(place / "audio" / f"{number}.wav", samples[: len(samples) - 40 * number])
    completed = start(place, place / "whole", {})
    assert completed.returncode == 0, completed.stderr[-3000:]
    return place


def start(place, folder, kill, **changes):
    """Starts the run in a folder, with the settings in a recipe."""
    folder.mkdir(exist_ok=True)
    sources = {"model_name_or_path": str(place / "dense"), "dataset_name": str(place / "audio")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | sources | changes))
    return subprocess.run(
        [*helper_command("killed_run"), "recipe.yaml", json.dumps(kill)],
        cwd=folder,
        env={**with_root(), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def assert_ends_like_the_whole_run(place, folder):
    (whole, weights), (report, resumed) = (
        (json.loads((path / "pruning_report.json").read_text()), load_file(path / "model.safetensors"))
        for path in (place / "whole" / "pruned", folder / "pruned")
    )
    history, whole_history = report["results"]["history"], whole["results"]["history"]
    assert losses_of(history) == losses_of(whole_history)
    assert [entry["step"] for entry in history] == [*range(1, STEPS[1] + 1), *range(1, STEPS[2] + 1)]
    assert history[STEPS[1] - 1]["deterministic_sparsity"] > 0
    assert report["results"]["held_out_loss"] == whole["results"]["held_out_loss"]
    assert report["sizes"]["shape"] == whole["sizes"]["shape"]
    assert resumed.keys() == weights.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())
    assert sorted(path.name for path in folder.iterdir()) == ["pruned", "recipe.yaml"]


def kill_and_go_on(place, folder, kills):
    for kill in kills:
        killed = start(place, folder, kill)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
        assert not (folder / "pruned").exists() and (folder / "pruned.partial").is_dir()
    completed = start(place, folder, {})
    assert completed.returncode == 0, completed.stderr[-3000:]
    assert_ends_like_the_whole_run(place, folder)
    return completed


def test_a_run_goes_on_after_a_kill_in_each_stage(place, tmp_path):
    # 120 + 80 steps of two micro-batches each; the second start goes on from step 28, 184 micro-batches from stage 2.
    completed = kill_and_go_on(
        place, tmp_path / "run", [{"micro_batch": 63, "delay": 0.0}, {"micro_batch": 244, "delay": 0.01}]
    )
    assert "cut short" not in completed.stderr


@pytest.mark.slow
def test_ten_kills_at_random_moments(place, tmp_path):
    chance = random.Random(7)
    kills = [
        {"save": chance.randint(1, 20)}
        if number % 2
        else {"micro_batch": chance.randint(1, 70), "delay": chance.random() / 10}
        for number in range(10)
    ]
    kill_and_go_on(place, tmp_path / "run", kills)


@pytest.mark.parametrize("save", [1, 2, 5, 6])
def test_a_checkpoint_cut_short_is_passed_over(place, tmp_path, save):
    completed = kill_and_go_on(place, tmp_path / "run", [{"save": save}])
    assert "was cut short" in completed.stderr and "Going back to the checkpoint before" in completed.stderr


def test_changed_settings_are_named(place, tmp_path):
    folder = tmp_path / "run"
    assert start(place, folder, {"micro_batch": 40, "delay": 0.0}).returncode == -signal.SIGKILL
    changes = {"gate_learning_rate": 0.4, "crop_seconds": 0.04, "logging_steps": 5, "gradient_accumulation_steps": 1}
    refused = start(place, folder, {}, **changes)
    assert refused.returncode == 2
    message = refused.stderr.strip().splitlines()[-1]
    assert message.startswith("hf-prunable prune: error: ")
    assert f"'{folder / 'pruned.partial'}' holds an interrupted run of other settings: " in message
    for difference in (
        "`crop_seconds` was 0.05 and is 0.04",
        "`gate_learning_rate` was 0.3 and is 0.4",
        "`micro_batches_per_step` was 2 and is 1",
    ):
        assert difference in message
    assert "logging_steps" not in message and "give `--override`" in message
    accepted = start(place, folder, {}, override=True, gate_learning_rate=0.4)
    assert accepted.returncode == 0 and "other settings: `gate_learning_rate` was" in accepted.stderr
