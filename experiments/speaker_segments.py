"""Makes a speaker task from LibriSpeech, in the format that run_finetune_speech_commands.py reads.

    python -m experiments speaker_segments --librispeech LibriSpeech/train-clean-100 --output_dir speaker_segments
    python run_finetune_speech_commands.py --task speaker --dataset_name speaker_segments --min_clips_per_speaker 5 ...

One utterance of each speaker is cut into up to twelve clips of one second: up to nine for training, one for validation and
the last two for testing. All clips of a speaker come from one recording session, so the task does not separate voice from
room and text.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import soundfile
from datasets import Audio, Dataset
from transformers import HfArgumentParser
from transformers.utils import logging

from experiments.speaker_probe import cut_segments, speaker_utterances
from hf_prunable.data.audio import decode_audio
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.runtime.files import staged_directory


logger = logging.get_logger("hf_prunable.benchmarks")

# The reader expects a word label; clips here have no common words.
LABEL = "segment"


@dataclass
class SegmentArguments:
    """Input and output folders."""

    librispeech: str = field(metadata={"help": "Folder of LibriSpeech."})
    output_dir: str = field(metadata={"help": "Output folder, one parquet file per split; must be new or empty."})


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
