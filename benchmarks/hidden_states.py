"""Hidden states of a frozen encoder, of many clips, computed once for all that is measured on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging


BATCH_SIZE = 8


def pooled_hidden_states(
    model: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray]
) -> np.ndarray:
    """The mean over time of every hidden state of every clip.

    Args:
        model: A base model.
        feature_extractor: Of its checkpoint.
        waveforms: Each of shape (samples,).

    Returns:
        Of shape (clips, layers + 1, hidden size), float32; place 0 is the first layer's input.
    """
    pooled: list[Any] = [None] * len(waveforms)
    for numbers, outputs in _outputs(model, feature_extractor, waveforms, output_hidden_states=True):
        states = torch.stack([state.mean(1) for state in outputs.hidden_states], dim=1)
        for number, state in zip(numbers, states.float().cpu().numpy(), strict=True):
            pooled[number] = state
    return np.stack(pooled)


def last_hidden_states(model: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """The last hidden state of all frames, clip after clip.

    Args:
        model: A base model.
        feature_extractor: Of its checkpoint.
        waveforms: Each of shape (samples,).

    Returns:
        Of shape (frames, hidden size), float32.
    """
    frames: list[Any] = [None] * len(waveforms)
    for numbers, outputs in _outputs(model, feature_extractor, waveforms):
        for number, state in zip(numbers, outputs.last_hidden_state.float().cpu().numpy(), strict=True):
            frames[number] = state
    return np.concatenate(frames)


@torch.inference_mode()
def _outputs(
    model: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray], **kwargs: Any
) -> Iterator[tuple[list[int], Any]]:
    model.eval()
    for numbers in _equal_length_batches([len(waveform) for waveform in waveforms]):
        inputs = feature_extractor(
            [waveforms[number] for number in numbers],
            sampling_rate=feature_extractor.sampling_rate,
            padding=False,
            return_attention_mask=False,
            return_tensors="pt",
        )
        yield numbers, model(inputs["input_values"].to(model.device), **kwargs)


def _equal_length_batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of clips of one length: the base models' group norm runs over time, and padding would take part in it."""
    by_length: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        by_length.setdefault(length, []).append(number)
    batches = [
        numbers[start : start + BATCH_SIZE]
        for numbers in by_length.values()
        for start in range(0, len(numbers), BATCH_SIZE)
    ]
    yield from logging.tqdm(batches, desc="Hidden states")
