"""Makes a speaker task of LibriSpeech, in the form that run_finetune_speech_commands.py reads.

    python -m experiments.speaker_segments --librispeech LibriSpeech/train-clean-100 --output_dir speaker_segments
    python run_finetune_speech_commands.py --task speaker --dataset_name speaker_segments --min_clips_per_speaker 5 ...

Every speaker gives one utterance, cut into twelve clips of a second: nine to train on, one to choose by, and the last two
for testing. There is one recording session a speaker, so that voice, room and text are not told apart.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import soundfile
from datasets import Audio, Dataset
from transformers import HfArgumentParser
from transformers.utils import logging

from experiments.speakers import cut_segments, speaker_utterances
from hf_prunable.data.audio import decode_audio
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.runtime.files import staged_directory


logger = logging.get_logger("hf_prunable.benchmarks")

# Nobody says the same word.
LABEL = "segment"


@dataclass
class SegmentArguments:
    """From where to where."""

    librispeech: str = field(metadata={"help": "Folder of LibriSpeech."})
    output_dir: str = field(metadata={"help": "Folder for one parquet file a split; must not be there yet."})


def segment_splits(utterances: Dataset) -> dict[str, list[dict]]:
    """The rows of each split.

    Args:
        utterances: As `speaker_utterances` gives them.
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
            # Cast afterwards: encoding as `Audio` would ask for torchcodec.
            table = Dataset.from_list(rows).cast_column("audio", Audio(sampling_rate=SAMPLING_RATE, decode=False))
            table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    logger.warning(f"{options.output_dir}: " + ", ".join(f"{len(rows)} {split}" for split, rows in splits.items()))


if __name__ == "__main__":
    main()
