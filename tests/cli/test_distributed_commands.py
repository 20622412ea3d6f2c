"""Commands in two processes: they end without a crash, outside of their process group, also when they fail."""

import subprocess
import sys

import numpy as np
import pytest
import yaml
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.finetuning.stage_plan import stage_name
from tests.helpers.processes import with_root
from tests.helpers.speech_files import RATE, tone, write, write_speech_commands
from tests.helpers.tiny_models import tiny_stock


# Registered after torch's own functions and so called before them.
SCRIPT = """
import atexit, os, sys
import torch.distributed as dist
from hf_prunable.cli.{module} import main

def show():
    print(f"rank {{os.environ['RANK']}} in a group: {{dist.is_initialized()}}", file=sys.stderr, flush=True)

atexit.register(show)
main([sys.argv[1]])
"""
TRAINING = {"use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "per_device_train_batch_size": 2}


@pytest.fixture
def launch(tmp_path):
    """Runs a command in two processes; returns exit status and standard error."""
    tiny_stock("wavlm", conv_stride=(20, 4, 2), mask_time_prob=0.0, mask_feature_prob=0.0).save_pretrained(
        tmp_path / "dense"
    )
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "dense")

    def run(module, **recipe):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"model_name_or_path": "dense", **TRAINING, **recipe}))
        (tmp_path / "script.py").write_text(SCRIPT.format(module=module))
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {
            **with_root(),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "cache"),
        }
        done = subprocess.run(
            [sys.executable, *launcher, "script.py", "recipe.yaml"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
        )
        return done.returncode, done.stderr

    return run


def assert_ended_well(status, log):
    assert status == 0, log[-4000:]
    assert "terminate called" not in log and "Traceback" not in log
    for rank in range(2):
        assert f"rank {rank} in a group: False" in log


STATISTICS = {"calibration_clips": 4, "calibration_seconds": 0.1, "curve_clips": 4, "reconstruction_steps": 2}


@pytest.mark.parametrize("options", [{}, {"gate_start": "one_shot", "refit": True, **STATISTICS}])
def test_prune(launch, tmp_path, options):
    for number, noise in enumerate(0.1 * np.random.default_rng(0).standard_normal((6, RATE * 3 // 10))):
        write(tmp_path / "audio" / f"{number}.wav", noise)
    recipe = {
        "dataset_name": "audio",
        "output_dir": "out",
        "target_sparsity": 0.3,
        "crop_seconds": 0.1,
        "min_seconds": 0.25,
        "held_out_fraction": 0.3,
        "latency_seconds": 0.2,
        "max_steps": 2,
        "final_steps": 1,
        **options,
    }
    assert_ended_well(*launch("prune", **recipe))
    assert (tmp_path / "out" / "model.safetensors").is_file() and not (tmp_path / "out.partial").exists()


def test_finetune_with_a_damaged_checkpoint(launch, tmp_path):
    names = [f"{word}/{speaker}_nohash_{take}" for word in ("no", "up") for speaker in "abc" for take in range(6)]
    lists = {
        split: [name for name in names if name.endswith(take)]
        for split, take in (("validation", "_4"), ("test", "_5"))
    }
    write_speech_commands(tmp_path / "clips", names, **lists)
    generator = np.random.default_rng(0)
    for name in names:
        noise = 0.05 * generator.standard_normal(RATE // 10)
        write(tmp_path / "clips" / f"{name}.wav", tone(0.1, frequency=400.0 + 900.0 * name.startswith("up")) + noise)
    damaged = tmp_path / "out.partial" / stage_name("truncated", 42) / "checkpoint-3"
    damaged.mkdir(parents=True)
    (damaged / "optimizer.pt").write_bytes(b"half")
    recipe = {
        "dataset_name": "clips",
        "output_dir": "out",
        # The folder has no settings of the run that has left the checkpoint.
        "override": True,
        "truncate": "1",
        "profile_clips": 30,
        "n_neighbors": 3,
        "num_permutations": 2,
        "num_train_epochs": 1,
    }
    status, log = launch("finetune_speech_commands", **recipe)
    assert_ended_well(status, log)
    assert log.count("checkpoint-3 was cut short") == 1
    assert (tmp_path / "out" / "model.safetensors").is_file() and not (tmp_path / "out.partial").exists()


def test_wrong_input(launch, tmp_path):
    status, log = launch("prune", dataset_name="nowhere", output_dir="out", target_sparsity=0.3)
    assert status != 0 and log.count("hf-prunable prune: error: ") == 1 and "terminate called" not in log
    assert "rank 0 in a group: False" in log
