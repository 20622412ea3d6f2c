"""Batches of clips for one forward pass, and when clips of different lengths may share one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor


# Default maximum number of clips per forward pass.
BATCH_SIZE = 8


def padding_changes_features(model: PreTrainedModel, feature_extractor: Wav2Vec2FeatureExtractor) -> bool:
    """Whether padding a clip changes the hidden states of its own frames.

    It does in four cases: the feature encoder normalises over time (`feat_extract_norm="group"`, base models); the
    feature extractor returns no attention mask; a batch norm moves padding off zero before the position convolution
    (HuBERT's `conv_pos_batch_norm`); or one position convolution follows another (data2vec-audio).

    Args:
        model: WavLM, HuBERT or wav2vec 2.0 model, stock or prunable, with or without a head.
        feature_extractor: Feature extractor of the same checkpoint.
    """
    config = model.config
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
