"""Speaker probe of a frozen encoder: a linear classifier of one-second segments of LibriSpeech."""

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


# Names have the form SPEAKER-CHAPTER-UTTERANCE.
FILE_NAME = re.compile(r"(\d+)-\d+-\d+\.\w+$")
# A shorter utterance has fewer than five training segments.
MIN_SECONDS = 8
MAX_SEGMENTS = 12
# The last two segments of an utterance are for testing, the one before them for validation.
TEST_SEGMENTS = 2


def speaker_utterances(folder: str | os.PathLike, sampling_rate: int) -> Dataset:
    """Selects the first utterance of at least 8 s of every speaker in a folder of LibriSpeech.

    Args:
        folder: Folder of audio files named SPEAKER-CHAPTER-UTTERANCE.
        sampling_rate: Sampling rate in Hz that audio is decoded to.

    Returns:
        Utterances with columns `audio`, `speaker` and `seconds`.

    Raises:
        ValueError: If a file name has another form.
    """
    clips = load_speech_dataset(folder)
    speakers = []
    for clip in clips:
        name = os.path.basename(clip["audio"]["path"])
        match = FILE_NAME.match(name)
        if match is None:
            raise ValueError(
                f"{name} in {folder} does not name its speaker. Files must be named SPEAKER-CHAPTER-UTTERANCE in "
                "numbers, as in LibriSpeech. Give such a folder as `librispeech`."
            )
        speakers.append(match.group(1))
    clips = clips.add_column("speaker", speakers)
    clips, _ = scan_speech_dataset(clips, sampling_rate=sampling_rate, min_seconds=MIN_SECONDS)
    first = {speaker: index for index, speaker in reversed(list(enumerate(clips["speaker"])))}
    return clips.select(sorted(first.values()))


def without_test_segments(clips: Dataset, utterances: Dataset, sampling_rate: int) -> Dataset:
    """Removes the seconds that speakers are tested on from training clips.

    Args:
        clips: Training clips with an `audio` column.
        utterances: Result of `speaker_utterances`, matched to the clips by file.
        sampling_rate: Sampling rate in Hz; shortened clips are stored at this rate, in 16 bit.
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
    """Cuts the end of an utterance into segments of one second, twelve at most.

    Args:
        waveform: Waveform of shape (samples,), of at least 8 s.
        sampling_rate: Sampling rate in Hz.

    Returns:
        Waveforms by split ("train", "validation", "test"), in order of time.
    """
    count = min(MAX_SEGMENTS, len(waveform) // sampling_rate)
    segments = np.split(waveform[-count * sampling_rate :], count)
    return {
        "train": segments[: -TEST_SEGMENTS - 1],
        "validation": segments[-TEST_SEGMENTS - 1 : -TEST_SEGMENTS],
        "test": segments[-TEST_SEGMENTS:],
    }


def speaker_accuracy(model: PreTrainedModel, feature_extractor: Any, utterances: Dataset) -> dict:
    """Trains and tests a weighted-sum probe of the speakers, on the last two seconds of one utterance per speaker.

    All segments of a speaker come from one recording session, so the accuracy compares encoders but does not predict
    speaker recognition across sessions.

    Args:
        model: Base model.
        feature_extractor: Feature extractor of the model's checkpoint.
        utterances: Result of `speaker_utterances`.

    Returns:
        Result of `weighted_sum_probe`, and "sessions_per_speaker".
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
