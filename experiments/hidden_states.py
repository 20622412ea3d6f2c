"""Hidden states of a frozen encoder for many clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_prunable.truncation.clip_batches import BATCH_SIZE, plan_batches
from hf_prunable.truncation.pooled_features import pool_clips


def pooled_hidden_states(
    model: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray]
) -> np.ndarray:
    """Computes the mean over time of every hidden state of every clip, see `pool_clips`.

    Args:
        model: Base model.
        feature_extractor: Feature extractor of the model's checkpoint.
        waveforms: Waveforms of shape (samples,), each long enough for one frame.

    Returns:
        Features of shape (clips, layers + 1, hidden size), float32; index 0 is the input of the first layer.
    """
    lengths = [len(waveform) for waveform in waveforms]
    features, _ = pool_clips(model, feature_extractor, lengths, waveforms.__getitem__)
    return features.layers.transpose(1, 0, 2)


@torch.inference_mode()
def last_hidden_states(model: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """Computes the last hidden state of all frames, clip after clip.

    Args:
        model: Base model.
        feature_extractor: Feature extractor of the model's checkpoint.
        waveforms: Waveforms of shape (samples,).

    Returns:
        Hidden states of shape (frames, hidden size), float32.
    """
    model.eval()
    frames: list[Any] = [None] * len(waveforms)
    lengths = [len(waveform) for waveform in waveforms]
    # Batches of equal length need no padding, which the group norm of the base models would include.
    batches = list(plan_batches(lengths, BATCH_SIZE, equal_lengths=True))
    for clips in logging.tqdm(batches, desc="Hidden states"):
        inputs = feature_extractor(
            [waveforms[clip] for clip in clips],
            sampling_rate=feature_extractor.sampling_rate,
            padding=False,
            return_attention_mask=False,
            return_tensors="pt",
        )
        states = model(inputs["input_values"].to(model.device)).last_hidden_state
        for clip, state in zip(clips, states.float().cpu().numpy(), strict=True):
            frames[clip] = state
    return np.concatenate(frames)
