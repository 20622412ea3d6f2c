"""One vector for each clip and hidden state: the mean over the clip's frames, as the truncated model would give it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.audio import AudioError, audio_name, count_samples, decode_audio, undecoded_audio
from ..data.speech_dataset import SkippedAudio
from ..modeling.size import count_frames
from ..runtime.evaluation_mode import evaluation_mode
from ..runtime.files import save_tensors_atomically


logger = logging.get_logger(__name__)

BATCH_SIZE = 8
TOO_SHORT = "too short for one frame"
# Of the cached features; to be raised when the same weights and clips give other ones.
FORMAT_VERSION = 1
# What a configuration says about its file rather than about the model.
NOT_OF_THE_MODEL = ("_name_or_path", "architectures", "transformers_version")
READ_BYTES = 2**20


@dataclass(frozen=True)
class PooledFeatures:
    """Pooled hidden states of the clips that could be read.

    Attributes:
        layers: Of shape (layers + 1, clips, hidden size), float32; place 0 is the input of the first layer.
        clips: The row of each of these clips in the data set, ascending.
    """

    layers: np.ndarray
    clips: np.ndarray


def pooled_features(
    model: PreTrainedModel,
    feature_extractor: Any,
    dataset: Dataset,
    *,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike | None = None,
) -> PooledFeatures:
    """Pools every hidden state of every clip of a data set, in one pass that keeps nothing else of the audio.

    Clips that cannot be read or are too short for a frame are left out, with a warning that counts them. See
    `pool_clips` for what is pooled and how clips share batches.

    Args:
        model: Stock or prunable, with a head or without.
        feature_extractor: Of its checkpoint.
        dataset: With an `audio` column.
        batch_size: Clips of a batch, at most.
        cache_dir: Where features are kept, in a file for each combination of weights and clips; what is there is read
            instead of computed.

    Raises:
        ValueError: If no clip is left, or the file in the cache is damaged.
    """
    clips = undecoded_audio(dataset)
    path = key = None
    if cache_dir is not None:
        key = _key(model.base_model, feature_extractor, clips)
        path = Path(cache_dir).expanduser() / f"pooled_features_{key[:32]}.safetensors"
        if path.is_file():
            logger.info(f"Features from {path}")
            return _read(path)
    rate = feature_extractor.sampling_rate
    lengths: list[int] = []
    skipped: dict[str, list[str]] = {}
    for row in logging.tqdm(clips, desc="Reading audio headers", unit="clip"):
        try:
            lengths.append(count_samples(row["audio"], rate))
        except AudioError as error:
            lengths.append(0)
            skipped.setdefault(error.cause, []).append(audio_name(row["audio"]))
    features, skipped_later = pool_clips(
        model,
        feature_extractor,
        lengths,
        lambda number: decode_audio(clips[number]["audio"], rate),
        batch_size=batch_size,
    )
    for cause, numbers in skipped_later.items():
        skipped.setdefault(cause, []).extend(audio_name(clips[number]["audio"]) for number in numbers)
    summary = SkippedAudio(len(clips), skipped)
    if not len(features.clips):
        raise ValueError(f"No clip is left: {summary}. Give audio that soundfile can read.")
    if skipped:
        logger.warning(f"{summary}. Going on with the other {len(features.clips)}.")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"layers": torch.from_numpy(features.layers), "clips": torch.from_numpy(features.clips)}
        save_tensors_atomically(path, tensors, {"key": key})
    return features


def pool_clips(
    model: PreTrainedModel,
    feature_extractor: Any,
    lengths: Sequence[int],
    read: Callable[[int], np.ndarray],
    *,
    batch_size: int = BATCH_SIZE,
) -> tuple[PooledFeatures, dict[str, list[int]]]:
    """Pools the hidden states of clips that are read when they are needed.

    The mean is over the clip's own frames, not over padding. Where padding would change these frames, only clips of
    equal length share a batch: see `padding_changes_features`.

    A pre-norm model ("stable layer norm") ends with a norm, and truncated after layer l it outputs that norm of h_l. So
    of these models `encoder.layer_norm(h_l)` is pooled, not h_l, of all l alike.

    Args:
        model: Stock or prunable, with a head or without; it is read in evaluation mode.
        feature_extractor: Of its checkpoint; its `do_normalize` and `return_attention_mask` are obeyed.
        lengths: Samples of each clip; a length of 0 leaves the clip out. Batches are planned with them; what is read
            decides.
        read: Gives the waveform of a clip, of shape (samples,).
        batch_size: Clips of a batch, at most.

    Returns:
        The features, and the numbers of the clips left out by cause: those for which `read` raises an `AudioError` and
        those too short for one frame.

    Raises:
        ValueError: If the batch size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more.")
    base = model.base_model
    config = base.config
    equal_lengths = padding_changes_features(model, feature_extractor)
    features = np.empty((len(base.encoder.layers) + 1, len(lengths), config.hidden_size), dtype=np.float32)
    is_pooled = np.zeros(len(lengths), dtype=bool)
    left_out: dict[str, list[int]] = {}
    progress = logging.tqdm(total=len(lengths), desc="Hidden states", unit="clip")
    with progress, evaluation_mode([base]):
        for batch in plan_batches(lengths, batch_size, equal_lengths):
            waveforms = {}
            for number in batch:
                try:
                    waveform = read(number)
                except AudioError as error:
                    left_out.setdefault(error.cause, []).append(number)
                    continue
                if count_frames(config, len(waveform)) < 1:
                    left_out.setdefault(TOO_SHORT, []).append(number)
                else:
                    waveforms[number] = waveform
            for numbers in _of_equal_length(waveforms) if equal_lengths else [list(waveforms)]:
                if numbers:
                    pooled = _pool_batch(base, feature_extractor, [waveforms[number] for number in numbers])
                    features[:, numbers] = pooled
                    is_pooled[numbers] = True
            progress.update(len(batch))
    clips = np.flatnonzero(is_pooled)
    return PooledFeatures(features if len(clips) == len(lengths) else features[:, clips], clips), left_out


def padding_changes_features(model: PreTrainedModel, feature_extractor: Any) -> bool:
    """Whether padding a clip would change its own frames.

    So it does where a norm runs over time (`feat_extract_norm="group"`, the base models'), where the feature extractor
    gives no attention mask, and where padding is shifted off zero before the position convolution (HuBERT's
    `conv_pos_batch_norm`).
    """
    config = model.base_model.config
    return (
        config.feat_extract_norm == "group"
        or not feature_extractor.return_attention_mask
        or getattr(config, "conv_pos_batch_norm", False)
    )


def plan_batches(lengths: Sequence[int], batch_size: int, equal_lengths: bool) -> Iterator[list[int]]:
    """Numbers of clips for each batch, from short to long, without those of length 0.

    Args:
        lengths: Of the clips.
        batch_size: At most.
        equal_lengths: Whether a batch must have clips of one length only.
    """
    order = [number for number in np.argsort(lengths, kind="stable").tolist() if lengths[number] > 0]
    start = 0
    for end in range(1, len(order) + 1):
        is_full = end - start == batch_size
        is_last = end == len(order)
        if is_full or is_last or (equal_lengths and lengths[order[end]] != lengths[order[start]]):
            yield order[start:end]
            start = end


def _of_equal_length(waveforms: dict[int, np.ndarray]) -> list[list[int]]:
    by_length: dict[int, list[int]] = {}
    for number, waveform in waveforms.items():
        by_length.setdefault(len(waveform), []).append(number)
    return list(by_length.values())


def _pool_batch(base: PreTrainedModel, feature_extractor: Any, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """Of shape (layers + 1, clips, hidden size)."""
    inputs = feature_extractor(
        waveforms, sampling_rate=feature_extractor.sampling_rate, padding=True, return_tensors="pt"
    ).to(base.device)
    inputs["input_values"] = inputs["input_values"].to(base.dtype)
    states = base(**inputs, output_hidden_states=True).hidden_states
    frames = torch.tensor([count_frames(base.config, len(waveform)) for waveform in waveforms], device=base.device)
    is_real = (torch.arange(states[0].shape[1], device=base.device) < frames[:, None]).unsqueeze(-1)
    if base.config.do_stable_layer_norm:
        states = [base.encoder.layer_norm(state) for state in states]
    pooled = [state.float().masked_fill(~is_real, 0).sum(1) / frames[:, None] for state in states]
    return torch.stack(pooled).cpu().numpy()


def _key(base: PreTrainedModel, feature_extractor: Any, clips: Dataset) -> str:
    """A hash of all that decides what the features are: weights, configuration, feature extractor and audio."""
    config = {name: value for name, value in base.config.to_dict().items() if name not in NOT_OF_THE_MODEL}
    settings = [FORMAT_VERSION, type(base).__name__, config, feature_extractor.to_dict()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(base.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for row in logging.tqdm(clips, desc="Identifying clips", unit="clip"):
        digest.update(_audio_digest(row["audio"]))
    return digest.hexdigest()


def _audio_digest(audio: dict | None) -> bytes:
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
        with safe_open(path, framework="numpy") as file:
            return PooledFeatures(file.get_tensor("layers"), file.get_tensor("clips"))
    except SafetensorError as error:
        raise ValueError(f"The cached features in {path} are damaged ({error}). Delete this file.") from error
