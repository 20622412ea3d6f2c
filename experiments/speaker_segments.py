"""Makes a speaker task from LibriSpeech, in the format that run_finetune_speech_commands.py reads.

    python -m experiments speaker_segments --librispeech LibriSpeech/train-clean-100 --output_dir speaker_segments
    python run_finetune_speech_commands.py --task speaker --dataset_name speaker_segments --min_clips_per_speaker 5 ...

One utterance of each speaker is cut into up to twelve clips of one second: up to nine for training, one for validation and
the last two for testing. All clips of a speaker come from one recording session, so the task does not separate voice from
room and text.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field

import numpy as np
import soundfile
from datasets import Audio, Dataset
from transformers import HfArgumentParser
from transformers.utils import logging

from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_dataset import load_speech_dataset, scan_speech_dataset
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.runtime.files import staged_directory


logger = logging.get_logger("hf_prunable.benchmarks")

# The reader expects a word label; clips here have no common words.
LABEL = "segment"
# Names have the form SPEAKER-CHAPTER-UTTERANCE.
FILE_NAME = re.compile(r"(\d+)-\d+-\d+\.\w+$")
# A shorter utterance has fewer than five training segments.
MIN_SECONDS = 8
MAX_SEGMENTS = 12
# The last two segments of an utterance are for testing, the one before them for validation.
TEST_SEGMENTS = 2


@dataclass
class SegmentArguments:
    """Input and output folders."""

    librispeech: str = field(metadata={"help": "Folder of LibriSpeech."})
    output_dir: str = field(metadata={"help": "Output folder, one parquet file per split; must be new or empty."})


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


def segment_splits(utterances: Dataset) -> dict[str, list[dict]]:
    """Cuts utterances into clips of one second.

    Args:
        utterances: Result of `speaker_utterances`.

    Returns:
        By split, rows with "audio", "label" and "speaker".
    """
    splits: dict[str, list[dict]] = {}
    for utterance in logging.tqdm(utterances, desc="Cutting utterances", unit=" utterances"):
        speaker, place = utterance["speaker"], 0
        for split, waveforms in cut_segments(decode_audio(utterance["audio"], SAMPLING_RATE), SAMPLING_RATE).items():
            for waveform in waveforms:
                content = io.BytesIO()
                soundfile.write(content, waveform, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
                audio = {"path": f"{speaker}_nohash_{place:02}.flac", "bytes": content.getvalue()}
                splits.setdefault(split, []).append({"audio": audio, "label": LABEL, "speaker": speaker})
                place += 1
    return splits


def main() -> None:
    (options,) = HfArgumentParser(SegmentArguments).parse_args_into_dataclasses()
    splits = segment_splits(speaker_utterances(options.librispeech, SAMPLING_RATE))
    with staged_directory(options.output_dir) as folder:
        for split, rows in splits.items():
            # Cast afterwards, because encoding as `Audio` requires torchcodec.
            table = Dataset.from_list(rows).cast_column("audio", Audio(sampling_rate=SAMPLING_RATE, decode=False))
            table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    logger.warning(f"{options.output_dir}: " + ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()))


if __name__ == "__main__":
    main()
