"""Crops of long recordings: crops per second and peak memory, with the recording decoded whole and in parts.

    python -m benchmarks audio_crops --output_dir audio_crops

The recordings are noise, because the time of decoding hardly depends on the content. Memory is measured on Linux only.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from transformers import HfArgumentParser, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from benchmarks.process_memory import in_fresh_process
from benchmarks.result_files import save_result
from hf_prunable.data.audio import audio_dataset
from hf_prunable.data.batches import CropCollator
from hf_prunable.data.crops import CropReader
from hf_prunable.data.shuffled_clips import ShuffledClips
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime import process_memory
from hf_prunable.runtime.tables import markdown_table


MIB = 2**20
WHOLE, PARTS = "whole", "parts"


@dataclass(frozen=True)
class Recording:
    """Storage of one recording.

    Attributes:
        format: Format, by soundfile's name.
        subtype: Subtype, by soundfile's name.
        rate: Sampling rate in Hz.
        channels: Number of channels.
    """

    format: str
    subtype: str
    rate: int
    channels: int = 1

    def __str__(self) -> str:
        channels = "mono" if self.channels == 1 else f"{self.channels} channels"
        return f"{self.format} {self.subtype}, {self.rate} Hz, {channels}"

    def write(self, folder: str, minutes: int) -> str:
        """Writes noise, minute by minute, and returns the path of the file.

        Args:
            folder: Output folder.
            minutes: Length in minutes.
        """
        path = Path(folder, f"{self.rate}-{self.channels}.{self.format.lower()}")
        samples = 0.1 * np.random.default_rng(0).standard_normal((60 * self.rate, self.channels))
        with soundfile.SoundFile(path, "w", self.rate, self.channels, self.subtype, format=self.format) as sound_file:
            for _ in range(minutes):
                sound_file.write(samples)
        return str(path)


RECORDINGS = (
    Recording("FLAC", "PCM_16", 16000),
    Recording("FLAC", "PCM_16", 44100, channels=2),
    Recording("WAV", "PCM_16", 16000),
    Recording("WAV", "PCM_24", 48000),
    # Cannot be read from a position exactly, and is always decoded whole.
    Recording("MP3", "MPEG_LAYER_III", 16000),
)


@dataclass
class CropArguments:
    """Length of the recordings and numbers of crops."""

    output_dir: str = field(metadata={"help": "Output folder."})
    minutes: int = field(default=60, metadata={"help": "Length of each recording in minutes."})
    crop_seconds: float = field(default=2.0, metadata={"help": "Length of a crop in seconds."})
    whole_crops: int = field(default=2, metadata={"help": "Number of crops with the recording decoded whole."})
    parts_crops: int = field(default=50, metadata={"help": "Number of crops with parts of the recording decoded."})


def measure(path: str, crop_seconds: float, num_crops: int, decoding: str) -> dict[str, float]:
    """Reads crops as a training run does. Call it in a fresh process.

    Args:
        path: File of the recording.
        crop_seconds: Length of a crop in seconds.
        num_crops: Number of crops.
        decoding: `WHOLE`, or `PARTS` where the format allows it.

    Returns:
        "crops_per_second", and "peak_bytes", the growth of the process's memory at its peak.
    """
    reader = CropReader(SAMPLING_RATE, crop_seconds) if decoding == PARTS else CropReader(SAMPLING_RATE)
    clips = ShuffledClips(audio_dataset([path]), num_samples=num_crops, reader=reader)
    collate = CropCollator(Wav2Vec2FeatureExtractor(), crop_seconds)
    before = process_memory.reset_peak()
    start = time.perf_counter()
    for index in range(num_crops):
        collate([clips[index]])
    seconds = time.perf_counter() - start
    return {"crops_per_second": num_crops / seconds, "peak_bytes": process_memory.peak() - before}


def measure_recordings(options: CropArguments) -> dict[str, Any]:
    """Writes the recordings one after the other and reads crops of each.

    Args:
        options: Options of the benchmark.
    """
    rows = {}
    for recording in logging.tqdm(RECORDINGS, desc="Reading crops", unit="recording"):
        with tempfile.TemporaryDirectory(prefix="hf_prunable-") as folder:
            path = recording.write(folder, options.minutes)
            rows[str(recording)] = {
                decoding: in_fresh_process(measure, path, options.crop_seconds, num_crops, decoding)
                for decoding, num_crops in ((WHOLE, options.whole_crops), (PARTS, options.parts_crops))
            }
    result = {**asdict(options), "machine": describe_machine("cpu", 1), "recordings": rows}
    del result["output_dir"]
    return result


def format_crops(result: dict[str, Any]) -> str:
    """Formats speed and memory as Markdown.

    Args:
        result: Result of `measure_recordings`.
    """
    header = ("Recording", "Whole: crops/s", "Whole: peak memory (MiB)", "Parts: crops/s", "Parts: peak memory (MiB)")
    rows = [
        (
            name,
            *(
                cell
                for decoding in (WHOLE, PARTS)
                for cell in (f"{row[decoding]['crops_per_second']:.3g}", f"{row[decoding]['peak_bytes'] / MIB:.0f}")
            ),
        )
        for name, row in result["recordings"].items()
    ]
    return (
        f"{markdown_table(header, rows, 'lrrrr')}\n\n"
        f"Crops of {result['crop_seconds']:g} s from recordings of {result['minutes']} minutes. MP3 cannot be read exactly "
        f"from a position and is decoded whole in both columns.\n\nMeasured on: {result['machine']}.\n"
    )


def main() -> None:
    (options,) = HfArgumentParser(CropArguments).parse_args_into_dataclasses()
    result = measure_recordings(options)
    save_result(Path(options.output_dir), "audio_crops", result, format_crops(result))


if __name__ == "__main__":
    main()
