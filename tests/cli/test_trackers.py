"""--report_to tensorboard: curves of each stage in the finished folder, and nothing in the working directory."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hf_prunable.cli import finetune_speech_commands
from hf_prunable.cli import prune as prune_command
from hf_prunable.data.arguments import SpeechArguments
from hf_prunable.finetuning.arguments import TruncationArguments
from hf_prunable.finetuning.classifier import FinetuningArguments
from hf_prunable.pruning.arguments import PruningArguments, PruningTrainingArguments
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.runtime.trackers import check_trackers
from tests.cli.test_run_prune import save_checkpoint
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_stock


TRAINING = {"use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "report_to": "tensorboard"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "dense", tiny_stock("wavlm", conv_stride=(20, 4, 2)))
    for number, samples in enumerate(0.1 * np.random.default_rng(0).standard_normal((24, RATE // 10))):
        write(tmp_path / "audio" / "ab"[number % 2] / f"{number}.wav", samples)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def curves(folder):
    """Name of each curve to its steps."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_pruning(place):
    prune_command.prune(
        PruningArguments(str(place / "dense"), method="gates", target_sparsity=[0.3], latency_seconds=0.1),
        SpeechArguments(str(place / "audio"), min_seconds=0.05, held_out_fraction=0.3),
        ObjectiveArguments(crop_seconds=0.05),
        PruningTrainingArguments(
            str(place / "out"), max_steps=4, final_steps=2, gate_learning_rate=2.0, eval_steps=2, **TRAINING
        ),
    )
    folders = sorted((place / "out" / "runs").iterdir())
    assert [path.name.split("_0")[0] for path in folders] == ["stage_1", "stage_2"]
    gates, final = map(curves, folders)
    for name in (
        "loss_with_constraint",
        "target_sparsity",
        "expected_sparsity",
        "deterministic_sparsity",
        "fractional_gates",
    ):
        assert gates[f"train/{name}"] == [1, 2, 3, 4], name
    for name in ("loss", "cosine_similarity", "relative_error", *(f"cosine_similarity_layer_{n}" for n in range(4))):
        assert gates[f"eval/{name}"] == [2, 4] and final[f"eval/{name}"] == [2], name
    history = json.loads((place / "out" / "pruning_report.json").read_text())["results"]["history"]
    assert [(entry["stage"], entry["step"]) for entry in history if "eval_cosine_similarity" in entry] == [
        *((1, 2), (1, 4)),
        (2, 2),
    ]
    assert "train/loss" not in gates and final["train/loss"] == [1, 2] and final["train/distillation_loss"] == [1, 2]
    assert not list((place / "here").iterdir())


def test_fine_tuning(place):
    finetune_speech_commands.finetune(
        TruncationArguments(str(place / "dense"), str(place / "audio"), truncate=1, n_neighbors=3, num_permutations=2),
        FinetuningArguments(str(place / "out"), num_train_epochs=2, **TRAINING),
    )
    (run,) = (place / "out" / "runs").iterdir()
    found = curves(run)
    assert run.name == "truncated_seed_42" and len(found["eval/accuracy"]) == 2 and found["train/loss"]
    assert not list((place / "here").iterdir())


@pytest.mark.parametrize(
    "name, message",
    [("neptune", "its package is not installed.* none\\.$"), ("paper", "is no tracker of transformers")],
)
def test_trackers_that_cannot_be_used(name, message):
    check_trackers([])
    with pytest.raises(
        ValueError, match=f"`report_to` is '{name}'.*{message}|`report_to` is '{name}', which {message}"
    ):
        check_trackers([name])
