"""One feature vector for each clip and hidden state: the mean over the frames of the truncated model's output."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.utils import logging

from ..data.audio import AudioError, audio_name, count_samples, decode_audio, undecoded_audio
from ..data.speech_dataset import SkippedAudio
from ..modeling.identity import computing_fields
from ..runtime.digests import add_tensors
from ..runtime.evaluation_mode import evaluation_mode
from ..runtime.files import DamagedFileError, read_tensors, save_tensors_atomically
from .clip_batches import (
    BATCH_SIZE,
    batch_inputs,
    count_own_frames,
    group_by_length,
    padding_changes_features,
    plan_batches,
    unusable_cause,
)
from .encoder_layers import layers_name, run_layers


logger = logging.get_logger(__name__)

# Format of the cached features. Raise it when the same weights and clips give other features.
FORMAT_VERSION = 1
# Bytes of an audio file that are read at once.
READ_BYTES = 2**20


@dataclass(frozen=True)
class PooledFeatures:
    """Pooled hidden states of the clips that could be read.

    Attributes:
        layers: Mean of each hidden state over the frames of each clip, float32 of shape (layers + 1, clips, hidden
            size); index 0 is the input of the first layer.
        clips: Row of each clip in the data set, ascending, of shape (clips,).
    """

    layers: np.ndarray
    clips: np.ndarray


def pooled_features(
    model: PreTrainedModel,
    feature_extractor: SequenceFeatureExtractor,
    dataset: Dataset,
    *,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike | None = None,
) -> PooledFeatures:
    """Pools every hidden state of every clip of a data set in one pass over the audio.

    Clips that cannot be read or are too short for one frame are left out; one warning counts them. See `pool_clips`
    for what is pooled and which clips share a batch.

    Args:
        model: Encoder of any family, stock or prunable, with or without a head.
        feature_extractor: Feature extractor of the model's checkpoint.
        dataset: Clips, with a column `audio`.
        batch_size: Maximum number of clips per forward pass, 1 or more.
        cache_dir: Folder in which features are cached, one file for each combination of model, feature extractor and
            clips; features that are found there are read instead of computed. `None` for no cache.

    Raises:
        ValueError: If no clip can be used, or the cached file is damaged.
    """
    clips = undecoded_audio(dataset)
    if cache_dir is None:
        return _pool_dataset(model, feature_extractor, clips, batch_size)
    key = _cache_key(model, feature_extractor, clips)
    path = Path(cache_dir).expanduser() / f"pooled_features_{key[:32]}.safetensors"
    if path.is_file():
        logger.info(f"Features from {path}")
        return _read(path)
    features = _pool_dataset(model, feature_extractor, clips, batch_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"layers": torch.from_numpy(features.layers), "clips": torch.from_numpy(features.clips)}
    save_tensors_atomically(path, tensors, {"key": key})
    return features


def _pool_dataset(
    model: PreTrainedModel, feature_extractor: SequenceFeatureExtractor, clips: Dataset, batch_size: int
) -> PooledFeatures:
    """Pools a data set of undecoded audio; see `pooled_features`."""
    sampling_rate = feature_extractor.sampling_rate
    lengths: list[int] = []
    skipped: dict[str, list[str]] = {}
    for row in logging.tqdm(clips, desc="Reading audio headers", unit="clip"):
        try:
            lengths.append(count_samples(row["audio"], sampling_rate))
        except AudioError as error:
            lengths.append(0)
            skipped.setdefault(error.cause, []).append(audio_name(row["audio"]))
    features, left_out = pool_clips(
        model,
        feature_extractor,
        lengths,
        lambda clip_idx: decode_audio(clips[clip_idx]["audio"], sampling_rate),
        batch_size=batch_size,
    )
    for cause, clip_indices in left_out.items():
        skipped.setdefault(cause, []).extend(audio_name(clips[clip_idx]["audio"]) for clip_idx in clip_indices)
    summary = SkippedAudio(len(clips), skipped)
    if not len(features.clips):
        raise ValueError(f"No clip is left: {summary}. Give audio that soundfile can read.")
    if skipped:
        logger.warning(f"{summary}. Going on with the other {len(features.clips)}.")
    return features


def pool_clips(
    model: PreTrainedModel,
    feature_extractor: SequenceFeatureExtractor,
    lengths: Sequence[int],
    read: Callable[[int], np.ndarray],
    *,
    batch_size: int = BATCH_SIZE,
) -> tuple[PooledFeatures, dict[str, list[int]]]:
    """Pools the hidden states of clips that are read when they are needed.

    The mean is taken over the clip's own frames, without padding. Where padding would change these frames (see
    `padding_changes_features`), only clips of equal length share a batch.

    A model with a final norm, such as a pre-norm one (`do_stable_layer_norm`), outputs `encoder.layer_norm(h_l)` if it is
    truncated after layer l. This is what is pooled for such models, for every l, instead of h_l.

    Args:
        model: Encoder of any family, stock or prunable, with or without a head. It runs in evaluation mode.
        feature_extractor: Feature extractor of the model's checkpoint, with its settings, such as `do_normalize`.
        lengths: Expected length of each clip in samples, by which batches are planned; 0 leaves the clip out.
        read: Function from a clip index to the waveform of this clip, of shape (samples,).
        batch_size: Maximum number of clips per forward pass, 1 or more.

    Returns:
        The features, and cause to the indices of the clips that were left out for it: those for which `read` raised an
        `AudioError`, those too short for one frame, and those longer than the feature extractor takes.

    Raises:
        ValueError: If the batch size is below 1, the feature extractor is that of another kind of model, or the model has
            no one stack of layers.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more.")
    # The base class lacks this attribute, and every feature extractor has it.
    given: list[str] = feature_extractor.model_input_names  # type: ignore[attr-defined]
    if model.main_input_name not in given:
        raise ValueError(
            f"{type(model).__name__} takes {model.main_input_name!r}, and {type(feature_extractor).__name__} gives "
            f"{', '.join(map(repr, given))}. Give the feature extractor of the model's checkpoint."
        )
    # Counted, because a model may have been truncated by hand without changing its configuration.
    layers = layers_name(model)
    num_layers = len(list(model.get_submodule(layers).children()))
    equal_lengths = padding_changes_features(model, feature_extractor)
    features = np.empty((num_layers + 1, len(lengths), model.config.hidden_size), dtype=np.float32)
    is_pooled = np.zeros(len(lengths), dtype=bool)
    left_out: dict[str, list[int]] = {}
    progress = logging.tqdm(total=len(lengths), desc="Hidden states", unit="clip")
    with progress:
        for batch in plan_batches(lengths, batch_size, equal_lengths):
            waveforms = _read_waveforms(batch, read, partial(unusable_cause, model, feature_extractor), left_out)
            # Clips may turn out longer or shorter than planned.
            for clip_indices in group_by_length(waveforms) if equal_lengths else [list(waveforms)]:
                if clip_indices:
                    clips_of_batch = [waveforms[clip_idx] for clip_idx in clip_indices]
                    features[:, clip_indices] = _pool_batch(model, layers, feature_extractor, clips_of_batch)
                    is_pooled[clip_indices] = True
            progress.update(len(batch))
    clips = np.flatnonzero(is_pooled)
    return PooledFeatures(features if len(clips) == len(lengths) else features[:, clips], clips), left_out


def _read_waveforms(
    batch: Sequence[int],
    read: Callable[[int], np.ndarray],
    cause_of: Callable[[int], str | None],
    left_out: dict[str, list[int]],
) -> dict[int, np.ndarray]:
    """Reads the clips of a batch; the indices of those that cannot be used are added to `left_out` by cause.

    Args:
        batch: Indices of the clips.
        read: Function from a clip index to the waveform.
        cause_of: Function from a number of samples to the cause why such a clip cannot be used, or `None`.
        left_out: Cause to the indices of clips that are left out for it; changed in place.
    """
    waveforms = {}
    for clip_idx in batch:
        try:
            waveform = read(clip_idx)
        except AudioError as error:
            left_out.setdefault(error.cause, []).append(clip_idx)
            continue
        cause = cause_of(len(waveform))
        if cause is None:
            waveforms[clip_idx] = waveform
        else:
            left_out.setdefault(cause, []).append(clip_idx)
    return waveforms


def _pool_batch(
    model: PreTrainedModel, layers: str, feature_extractor: SequenceFeatureExtractor, waveforms: list[np.ndarray]
) -> np.ndarray:
    """Averages each hidden state of clips over frames; the result has shape (layers + 1, clips, hidden size)."""
    inputs = batch_inputs(model, feature_extractor, waveforms)
    record = run_layers(model, layers, inputs)
    states = record.states
    num_frames = count_own_frames(model, inputs, waveforms, states[0].shape[1]).to(states[0].device)
    is_padding = (torch.arange(states[0].shape[1], device=states[0].device) >= num_frames[:, None]).unsqueeze(-1)
    if record.final_norm is not None:
        with evaluation_mode([record.final_norm]):
            states = [record.final_norm(state) for state in states]
    pooled = [state.float().masked_fill(is_padding, 0).sum(1) / num_frames[:, None] for state in states]
    return torch.stack(pooled).cpu().numpy()


def _cache_key(model: PreTrainedModel, feature_extractor: SequenceFeatureExtractor, clips: Dataset) -> str:
    """A hash of everything that the features depend on: weights, configuration, feature extractor and audio."""
    base = model.base_model
    settings = [FORMAT_VERSION, type(base).__name__, computing_fields(model.config), feature_extractor.to_dict()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    add_tensors(digest, base.state_dict())
    for row in logging.tqdm(clips, desc="Identifying clips", unit="clip"):
        digest.update(_audio_digest(row["audio"]))
    return digest.hexdigest()


def _audio_digest(audio: dict[str, Any] | None) -> bytes:
    """A hash of the content of an item, wherever it is stored; that of nothing if there is no content."""
    digest = hashlib.sha256()
    if audio and audio.get("bytes") is not None:
        digest.update(audio["bytes"])
    elif audio and audio.get("path") and os.path.isfile(audio["path"]):
        with open(audio["path"], "rb") as file:
            while content := file.read(READ_BYTES):
                digest.update(content)
    return digest.digest()


def _read(path: Path) -> PooledFeatures:
    try:
        tensors, _ = read_tensors(path)
        return PooledFeatures(tensors["layers"].numpy(), tensors["clips"].numpy())
    except (DamagedFileError, KeyError) as error:
        raise ValueError(f"The cached features in {path} are damaged ({error}). Delete this file.") from error
