"""Frames: which are padding, and models that cut audio into others."""

import pytest
import torch

from hf_prunable.modeling.size import count_frames
from hf_prunable.pruning.frames import frame_difference, real_frames
from tests.helpers.tiny_models import FAMILIES, tiny_config, tiny_inputs, tiny_prunable


@pytest.mark.parametrize("family", FAMILIES)
def test_real_frames_are_those_of_transformers(family):
    model = tiny_prunable(family)
    mask = tiny_inputs(batch_size=4)["attention_mask"]
    num_frames = count_frames(model.config, mask.shape[1])
    found = real_frames(model.config, mask, num_frames)
    assert torch.equal(found, model._get_feature_vector_attention_mask(num_frames, mask).bool())
    assert found[0].all() and not found[3].all()


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2"])
def test_an_adapter_after_the_encoder_shortens_nothing(family):
    mask = tiny_inputs()["attention_mask"]
    plain, adapter = (tiny_config(family, add_adapter=add_adapter) for add_adapter in (False, True))
    assert torch.equal(real_frames(plain, mask, 39), real_frames(adapter, mask, 39))


def test_a_clip_too_short_for_a_frame_has_none():
    config = tiny_config("wavlm")
    mask = torch.zeros(2, 800, dtype=torch.long)
    mask[0, :25] = 1
    mask[1, :45] = 1
    assert real_frames(config, mask, 39).sum(-1).tolist() == [count_frames(config, 25), count_frames(config, 45)]
    assert real_frames(config, torch.zeros_like(mask), 39).sum() == 0


def test_what_differs_is_named():
    config = tiny_config("hubert")
    assert frame_difference(config, tiny_config("wavlm")) is None
    other = tiny_config("hubert", conv_stride=(5, 2, 1))
    message = r"same frames, but `conv_stride` is [5, 2, 1] and [5, 2, 2]."
    assert frame_difference(config, other).endswith(message)
