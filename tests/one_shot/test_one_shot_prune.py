"""The public function: kinds of targets and of audio."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable import one_shot_prune
from hf_prunable.data.speech_dataset import load_speech_dataset
from hf_prunable.one_shot import one_shot_prune as module
from hf_prunable.pruning.fidelity import measure_fidelity
from tests.helpers.one_shot_models import FAST, make_clips
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_prunable


CLIPS, HELD_OUT = make_clips(), make_clips(4, seed=7)
FAST = replace(FAST, curve_clips=8, price_clips=4)


def assert_equal(one, two):
    assert one.config.shape == two.config.shape
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_a_tuple_of_targets_is_like_a_list():
    model = tiny_prunable("hubert")
    for name in ("target_sparsity", "target_macs"):
        found = [one_shot_prune(model, CLIPS, **{name: kind([0.05, 0.1])}, config=FAST) for kind in (list, tuple)]
        assert all(isinstance(models, list) and len(models) == 2 for models in found)
        for one, two in zip(*found, strict=True):
            assert_equal(one, two)
    (only,) = one_shot_prune(model, CLIPS, target_sparsity=(0.1,), config=FAST)
    assert_equal(only, one_shot_prune(model, CLIPS, target_sparsity=0.1, config=FAST))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_smallest_model_that_keeps_a_loss_or_a_similarity(dtype):
    model = tiny_prunable("wavlm").to(dtype).train()
    batches = [{"input_values": HELD_OUT}]
    for limits in ({"target_loss": 0.02}, {"target_similarity": 0.9995}):
        small = one_shot_prune(model, CLIPS, **limits, held_out=HELD_OUT, config=FAST)
        assert small.num_parameters() < 0.9 * model.num_parameters() and small.dtype == dtype and small.training
        if dtype == torch.float32:
            fidelity = measure_fidelity(small, model, batches)
            assert fidelity.distillation_loss <= limits.get("target_loss", 1)
            assert fidelity.mean_cosine >= limits.get("target_similarity", 0)


def test_a_data_set_of_clips_with_held_out_audio(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NUM_CROPS", 12)
    monkeypatch.setattr(module, "CROP_SECONDS", 0.05)
    for number, samples in enumerate(0.1 * np.random.default_rng(0).standard_normal((5, RATE // 5))):
        write(tmp_path / f"{number}.wav", samples)
    clips, feature_extractor = load_speech_dataset(tmp_path), Wav2Vec2FeatureExtractor()
    model = tiny_prunable("hubert")
    small = one_shot_prune(
        model, clips, feature_extractor=feature_extractor, target_loss=0.02, held_out=HELD_OUT, config=FAST
    )
    assert measure_fidelity(small, model, [{"input_values": HELD_OUT}]).distillation_loss <= 0.02
    assert small.num_parameters() < 0.9 * model.num_parameters()


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "Give one target"),
        ({"target_loss": 0.1, "target_similarity": 0.9}, "`target_loss` is given, and so is `target_similarity`"),
        ({"target_loss": 0.1, "target_sparsity": 0.3}, "`target_loss` is given, and so is `target_sparsity`"),
        ({"target_similarity": 0.9, "target_macs": (0.3,)}, "`target_similarity` is given, and so is `target_macs`"),
        ({"target_loss": 0.1, "rounds": 2}, "`target_loss` is given, and so is `rounds`"),
        ({"target_loss": 0.1, "held_out": None}, "give `held_out`"),
        ({"target_loss": 0.1, "held_out": HELD_OUT[0]}, "give `held_out`"),
        ({"target_loss": 0.1, "held_out": HELD_OUT[:0]}, "give `held_out`"),
        ({"target_loss": 0.1, "held_out": "folder"}, "give `held_out`"),
        ({"target_loss": 0.0}, "`target_loss` must be above 0"),
    ],
)
def test_what_cannot_be_asked_for(options, message):
    with pytest.raises(ValueError, match=message):
        one_shot_prune(tiny_prunable("hubert"), CLIPS, **{"held_out": HELD_OUT, **options}, config=FAST)
