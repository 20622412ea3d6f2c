"""Hidden states of a frozen encoder, of many clips, computed once for all that is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_prunable.truncation.pooled_features import BATCH_SIZE, plan_batches, pool_clips


def pooled_hidden_states(
    model: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray]
) -> np.ndarray:
    """The mean over time of every hidden state of every clip, as `pool_clips` gives it.

    Args:
        model: A base model.
        feature_extractor: Of its checkpoint.
        waveforms: Each of shape (samples,) and long enough for a frame.

    Returns:
        Of shape (clips, layers + 1, hidden size), float32; place 0 is the first layer's input.
    """
    lengths = [len(waveform) for waveform in waveforms]
    features, _ = pool_clips(model, feature_extractor, lengths, waveforms.__getitem__)
    return features.layers.transpose(1, 0, 2)


@torch.inference_mode()
def last_hidden_states(model: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """The last hidden state of all frames, clip after clip.

    Args:
        model: A base model.
        feature_extractor: Of its checkpoint.
        waveforms: Each of shape (samples,).

    Returns:
        Of shape (frames, hidden size), float32.
    """
    model.eval()
    frames: list[Any] = [None] * len(waveforms)
    lengths = [len(waveform) for waveform in waveforms]
    # No padding: the base models' group norm would take it in.
    batches = list(plan_batches(lengths, BATCH_SIZE, equal_lengths=True))
    for numbers in logging.tqdm(batches, desc="Hidden states"):
        inputs = feature_extractor(
            [waveforms[number] for number in numbers],
            sampling_rate=feature_extractor.sampling_rate,
            padding=False,
            return_attention_mask=False,
            return_tensors="pt",
        )
        states = model(inputs["input_values"].to(model.device)).last_hidden_state
        for number, state in zip(numbers, states.float().cpu().numpy(), strict=True):
            frames[number] = state
    return np.concatenate(frames)
