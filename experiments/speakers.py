"""How well a frozen encoder tells speakers apart: a linear classifier of one-second segments of LibriSpeech."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import soundfile
from datasets import Audio, Dataset
from transformers import PreTrainedModel

from experiments.hidden_states import pooled_hidden_states
from experiments.probe import SPLITS, weighted_sum_probe
from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_dataset import load_speech_dataset, scan_speech_dataset


# Speaker, chapter and number of the utterance.
FILE_NAME = re.compile(r"(\d+)-\d+-\d+\.\w+$")
# Below that a speaker would have fewer than five segments to train on.
MIN_SECONDS = 8
MAX_SEGMENTS = 12
# The last two segments of an utterance are for testing, the one before them for validation.
TEST_SEGMENTS = 2


def speaker_utterances(folder: str | os.PathLike, sampling_rate: int) -> Dataset:
    """One utterance of 8 s or more of every speaker in a folder of LibriSpeech.

    Args:
        folder: Of audio files named SPEAKER-CHAPTER-UTTERANCE.
        sampling_rate: In Hz, that audio will be decoded to.

    Returns:
        With the columns `audio`, `speaker` and `seconds`.

    Raises:
        ValueError: If a file is named otherwise.
    """
    clips = load_speech_dataset(folder)
    speakers = []
    for clip in clips:
        name = os.path.basename(clip["audio"]["path"])
        match = FILE_NAME.match(name)
        if match is None:
            raise ValueError(
                f"{name} in {folder} does not name its speaker. Files must be named SPEAKER-CHAPTER-UTTERANCE in "
                "numbers, as in LibriSpeech: give such a folder as `librispeech`."
            )
        speakers.append(match.group(1))
    clips = clips.add_column("speaker", speakers)
    clips, _ = scan_speech_dataset(clips, sampling_rate=sampling_rate, min_seconds=MIN_SECONDS)
    first = {speaker: number for number, speaker in reversed(list(enumerate(clips["speaker"])))}
    return clips.select(sorted(first.values()))


def without_test_segments(clips: Dataset, utterances: Dataset, sampling_rate: int) -> Dataset:
    """Clips to train on, less the seconds that speakers are tested on.

    Args:
        clips: With an `audio` column.
        utterances: As `speaker_utterances` gives them; a clip is one of them if it is the same file.
        sampling_rate: In Hz; clips that are cut are stored at this rate, in 16 bit.
    """
    tested = {os.path.realpath(clip["audio"]["path"]) for clip in utterances}
    items = [_cut(clip["audio"], tested, sampling_rate) for clip in clips.select_columns("audio")]
    return Dataset.from_dict({"audio": items}).cast_column("audio", Audio(decode=False))


def _cut(audio: dict, tested: Collection[str], sampling_rate: int) -> dict:
    if not audio["path"] or os.path.realpath(audio["path"]) not in tested:
        return {"path": audio["path"], "bytes": audio["bytes"]}
    content = io.BytesIO()
    waveform = decode_audio(audio, sampling_rate)[: -TEST_SEGMENTS * sampling_rate]
    soundfile.write(content, waveform, sampling_rate, format="FLAC", subtype="PCM_16")
    return {"path": audio["path"], "bytes": content.getvalue()}


def cut_segments(waveform: np.ndarray, sampling_rate: int) -> dict[str, list[np.ndarray]]:
    """The last whole seconds of an utterance, twelve at most, by split and in order.

    Args:
        waveform: Of shape (samples,), of 8 s or more.
        sampling_rate: In Hz.
    """
    count = min(MAX_SEGMENTS, len(waveform) // sampling_rate)
    segments = np.split(waveform[-count * sampling_rate :], count)
    return {
        "train": segments[: -TEST_SEGMENTS - 1],
        "validation": segments[-TEST_SEGMENTS - 1 : -TEST_SEGMENTS],
        "test": segments[-TEST_SEGMENTS:],
    }


def speaker_accuracy(model: PreTrainedModel, feature_extractor: Any, utterances: Dataset) -> dict:
    """Accuracy of a weighted-sum probe of the speakers, on the last two seconds of their only utterance.

    There is one recording session a speaker, so that voice, room and text are not told apart: the figure compares
    encoders with each other, and says little about recognising a speaker on another day.

    Args:
        model: A base model.
        feature_extractor: Of its checkpoint.
        utterances: As `speaker_utterances` gives them.

    Returns:
        What `weighted_sum_probe` returns, and "sessions_per_speaker".
    """
    rate = feature_extractor.sampling_rate
    segments: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    labels: dict[str, list[str]] = {split: [] for split in SPLITS}
    for clip in utterances:
        for split, waveforms in cut_segments(decode_audio(clip["audio"], rate), rate).items():
            segments[split] += waveforms
            labels[split] += [clip["speaker"]] * len(waveforms)
    features = {
        split: pooled_hidden_states(model, feature_extractor, waveforms) for split, waveforms in segments.items()
    }
    return weighted_sum_probe(features, labels) | {"sessions_per_speaker": 1}
