"""Batches of clips for one forward pass: which clips share one, their inputs, and which of their frames are their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from ..modeling.size import count_frames
from .encoder_layers import is_supported_family


# Default maximum number of clips per forward pass.
BATCH_SIZE = 8
# Two frames of filterbanks, 25 ms long and 10 ms apart, because features are normalised by their variance over frames.
FILTERBANK_SECONDS = 0.035
TOO_SHORT = "too short for one frame"
TOO_LONG = "longer than the feature extractor takes"


def padding_changes_features(model: PreTrainedModel, feature_extractor: SequenceFeatureExtractor) -> bool:
    """Whether padding a clip to the length of another one changes the hidden states of its own frames.

    For families without prunable classes, it is assumed that it does. In the others, it does in four cases: the feature
    encoder normalises over time (`feat_extract_norm="group"`, base models); the feature extractor returns no attention
    mask; a batch norm moves padding off zero before the position convolution (HuBERT's `conv_pos_batch_norm`); or one
    position convolution follows another (data2vec-audio).

    Args:
        model: Encoder of any family, stock or prunable, with or without a head.
        feature_extractor: Feature extractor of the same checkpoint.
    """
    config = model.config
    if not is_supported_family(config):
        return True
    # data2vec-audio has no such field, and layer norms alone.
    return (
        getattr(config, "feat_extract_norm", "layer") == "group"
        or not feature_extractor.return_attention_mask
        or getattr(config, "conv_pos_batch_norm", False)
        or hasattr(config, "conv_pos_kernel_size")
    )


def plan_batches(lengths: Sequence[int], batch_size: int, equal_lengths: bool) -> Iterator[list[int]]:
    """Splits clips into batches, from the shortest to the longest clip. Clips of length 0 are left out.

    Args:
        lengths: Length of each clip, in samples.
        batch_size: Maximum number of clips per batch, 1 or more.
        equal_lengths: Whether all clips of a batch must have the same length.

    Yields:
        Indices of the clips of one batch.
    """
    order = [clip_idx for clip_idx in np.argsort(lengths, kind="stable").tolist() if lengths[clip_idx] > 0]
    start = 0
    for end in range(1, len(order) + 1):
        is_full = end - start == batch_size
        is_last = end == len(order)
        if is_full or is_last or (equal_lengths and lengths[order[end]] != lengths[order[start]]):
            yield order[start:end]
            start = end


def group_by_length(waveforms: Mapping[int, np.ndarray]) -> list[list[int]]:
    """Groups clips of equal length.

    Args:
        waveforms: Clip index to waveform, of shape (samples,).

    Returns:
        Indices of the clips of each group.
    """
    groups: dict[int, list[int]] = {}
    for clip_idx, waveform in waveforms.items():
        groups.setdefault(len(waveform), []).append(clip_idx)
    return list(groups.values())


def unusable_cause(
    model: PreTrainedModel, feature_extractor: SequenceFeatureExtractor, num_samples: int
) -> str | None:
    """Returns why a clip of this length gives no features; `None` if it does.

    Args:
        model: Encoder of any family, stock or prunable, with or without a head.
        feature_extractor: Feature extractor of the same checkpoint.
        num_samples: Length of the clip.
    """
    config = model.config
    if hasattr(config, "conv_kernel"):
        # SEW takes several frames at once.
        is_too_short = count_frames(config, num_samples) < getattr(config, "squeeze_factor", 1)
    else:
        is_too_short = num_samples < FILTERBANK_SECONDS * feature_extractor.sampling_rate
    if is_too_short:
        return TOO_SHORT
    # Whisper's feature extractor cuts longer clips.
    return TOO_LONG if num_samples > getattr(feature_extractor, "n_samples", num_samples) else None


def batch_inputs(
    model: PreTrainedModel, feature_extractor: SequenceFeatureExtractor, waveforms: Sequence[np.ndarray]
) -> BatchFeature:
    """Returns the inputs of a model for a batch of clips.

    Clips are padded to the longest one, and as far as the feature extractor pads in any case: Whisper's to 30 s.

    Args:
        model: Encoder of any family, stock or prunable, with or without a head.
        feature_extractor: Feature extractor of the same checkpoint.
        waveforms: Clips of shape (samples,) each; of the same length where padding would change them.
    """
    options = {"padding": True} if is_supported_family(model.config) else {"return_attention_mask": True}
    extract: Any = feature_extractor
    return extract(list(waveforms), sampling_rate=feature_extractor.sampling_rate, return_tensors="pt", **options)


def count_own_frames(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], waveforms: Sequence[np.ndarray], num_frames: int
) -> torch.Tensor:
    """Returns the number of frames of each clip without those of padding, of shape (clips,).

    In families without prunable classes, it is the share of the inputs that the attention mask marks as the clip's own,
    rounded up; all frames if there is no mask.

    Args:
        model: Encoder of any family, stock or prunable, with or without a head.
        inputs: Inputs that `batch_inputs` returned.
        waveforms: Clips of shape (samples,) each.
        num_frames: Number of frames of the model for each clip, with padding.
    """
    if is_supported_family(model.config):
        return torch.tensor([count_frames(model.config, len(waveform)) for waveform in waveforms])
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.full((len(waveforms),), num_frames)
    # Integers, because a quotient of floats may be just above its value.
    return -(-mask.long().sum(-1) * num_frames // mask.shape[-1])
