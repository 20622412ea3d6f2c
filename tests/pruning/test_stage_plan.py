"""The plan of a run: its stages under the names of their folders, and its audio."""

from pathlib import Path

import pytest
from datasets import Dataset
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.data.streaming import SpeechStream
from hf_prunable.pruning.arguments import PruningArguments, PruningTrainingArguments
from hf_prunable.pruning.gate_pruning import GatePruning
from hf_prunable.pruning.stage_plan import plan_stages
from hf_prunable.pruning.training_data import TrainingData


def plan(tmp_path, targets, is_stream=False, **options):
    args = PruningTrainingArguments(str(tmp_path), use_cpu=True, max_steps=7, **options)
    clips = Dataset.from_dict({"audio": [{"bytes": b"", "path": None}] * 3, "seconds": [1800.0] * 3})
    train_clips = SpeechStream(clips.to_iterable_dataset(), 1.0) if is_stream else clips
    data = TrainingData(train_clips, clips.select([0]), Wav2Vec2FeatureExtractor(), 5.0)
    first_stage = GatePruning(PruningArguments("model")).first_stage(args)
    return plan_stages(targets, args, data, Path("pruned"), first_stage)


@pytest.mark.parametrize(
    "targets, final_steps, names",
    [
        ([0.5], 4, {"stage_1": 7, "stage_2_0.5": 4}),
        ([0.5], 0, {"stage_1": 7}),
        ([0.3, 0.5], 4, {"stage_1": 7, "stage_2_0.3": 4, "stage_2_0.5": 4}),
    ],
)
def test_a_stage_for_the_gates_and_one_for_each_target(tmp_path, targets, final_steps, names):
    stages = plan(tmp_path, targets, final_steps=final_steps).stages
    assert {name: stage.num_steps for name, stage in stages.items()} == names
    texts = [stage.name for stage in stages.values()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("is_stream", [False, True])
def test_audio_and_output_are_shown(tmp_path, is_stream):
    text = plan(tmp_path, [0.5], is_stream).describe()
    assert "Output: pruned" in text and "1 for evaluation" in text
    assert ("3 clips for training" in text) != is_stream and ("a stream of clips" in text) == is_stream
