"""Long recordings in ONNX: error of windows, of streams and of padding against whole clips, and peak memory by length.

    python -m benchmarks long_audio --model wavlm-mini --audio librispeech --output_dir long_audio

A recording is made of clips that are joined, in the order of their file names. Error is the norm of the difference of hidden
states, divided by the norm of those of the whole clip. Memory is measured on Linux only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import HfArgumentParser

from benchmarks.process_memory import in_fresh_process
from benchmarks.result_files import save_result
from examples.run_onnx import OnnxEncoder
from hf_prunable import OnnxModel, export_onnx
from hf_prunable.modeling.loading import load_config
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime import process_memory
from hf_prunable.runtime.tables import markdown_table


MIB = 2**20
# Names of the two hidden states that are compared.
MIDDLE, LAST = "middle", "last"
# Length in seconds of the clips that zeros are put after.
PADDED_SECONDS = 5.0
Outputs = dict[str, np.ndarray]


@dataclass
class LongAudioArguments:
    """Model, recordings and lengths."""

    model: str = field(metadata={"help": "Folder or Hub id of a checkpoint without a head."})
    audio: str = field(metadata={"help": "Folder of flac or wav files."})
    output_dir: str = field(metadata={"help": "Output folder."})
    recordings: int = field(default=2, metadata={"help": "Number of recordings."})
    recording_seconds: float = field(default=90.0, metadata={"help": "Length of a recording in seconds."})
    window_seconds: list[float] = field(
        default_factory=lambda: [5.0, 10.0, 30.0], metadata={"help": "Lengths of windows in seconds."}
    )
    overlap_seconds: list[float] = field(
        default_factory=lambda: [0.0, 0.5, 1.0, 2.0], metadata={"help": "Context on each side of a window in seconds."}
    )
    chunk_seconds: float = field(default=0.5, metadata={"help": "Length in seconds of the chunks of a stream."})
    context_seconds: list[float] = field(
        default_factory=lambda: [2.0, 5.0, 10.0],
        metadata={"help": "Audio in seconds before a chunk that is seen again."},
    )
    lookahead_seconds: list[float] = field(
        default_factory=lambda: [0.0, 0.5, 1.0],
        metadata={"help": "Audio in seconds after a chunk that is waited for."},
    )
    padding_seconds: list[float] = field(
        default_factory=lambda: [0.5, 2.5, 5.0], metadata={"help": "Lengths in seconds of the zeros after a clip."}
    )
    num_threads: int = field(default=1, metadata={"help": "Number of CPU threads."})


def join_clips(encoder: OnnxEncoder, folder: str, recordings: int, seconds: float) -> list[np.ndarray]:
    """Joins the clips of a folder to recordings.

    Args:
        encoder: Model whose sampling rate the clips must have.
        folder: Folder of flac or wav files.
        recordings: Number of recordings.
        seconds: Length of a recording in seconds.

    Raises:
        ValueError: If the folder has less audio than that.
    """
    samples = round(seconds * encoder.sampling_rate)
    joined = np.zeros(0, np.float32)
    for path in sorted(path for path in Path(folder).rglob("*") if path.suffix in (".flac", ".wav")):
        if len(joined) >= recordings * samples:
            break
        joined = np.concatenate([joined, encoder.read(str(path))])
    if len(joined) < recordings * samples:
        raise ValueError(
            f"{folder!r} has {len(joined) / encoder.sampling_rate:.1f} s of audio in flac and wav files; give a folder with "
            f"{recordings * seconds:g} s, or ask for fewer or shorter recordings."
        )
    return [joined[index * samples : (index + 1) * samples] for index in range(recordings)]


def errors(
    recordings: Iterable[np.ndarray], wholes: Iterable[Outputs], run: Callable[[np.ndarray], Outputs]
) -> dict[str, float]:
    """Returns the mean error of a way to run recordings, by output.

    Args:
        recordings: Samples of each recording.
        wholes: Outputs of each recording as a whole.
        run: The other way, a function of samples.
    """
    found: dict[str, list[float]] = {MIDDLE: [], LAST: []}
    for samples, whole in zip(recordings, wholes, strict=True):
        outputs = run(samples)
        for name, values in found.items():
            values.append(float(np.linalg.norm(outputs[name] - whole[name]) / np.linalg.norm(whole[name])))
    return {name: float(np.mean(values)) for name, values in found.items()}


def measure_memory(path: str, seconds: float, num_threads: int) -> int:
    """Runs a clip of noise and returns the growth of the process's memory at its peak, in bytes. Call it in a fresh process.

    Args:
        path: ONNX file.
        seconds: Length of the clip in seconds.
        num_threads: Number of CPU threads.
    """
    encoder = OnnxEncoder(path, num_threads)
    samples = np.random.default_rng(0).standard_normal(round(seconds * encoder.sampling_rate)).astype(np.float32)
    before = process_memory.reset_peak()
    encoder.whole(samples)
    return process_memory.peak() - before


def measure_windows(
    encoder: OnnxEncoder, recordings: list[np.ndarray], wholes: list[Outputs], options: LongAudioArguments
) -> list[dict[str, float]]:
    """Measures the error of windows for each length and overlap.

    Args:
        encoder: Model.
        recordings: Samples of each recording.
        wholes: Outputs of each recording as a whole.
        options: Options of the benchmark.
    """
    rows = []
    for window in options.window_seconds:
        for overlap in options.overlap_seconds:
            run = partial(encoder.in_windows, window_seconds=window, overlap_seconds=overlap)
            rows.append({"window_seconds": window, "overlap_seconds": overlap, **errors(recordings, wholes, run)})
    return rows


def measure_streams(
    encoder: OnnxEncoder, recordings: list[np.ndarray], wholes: list[Outputs], options: LongAudioArguments
) -> list[dict[str, float]]:
    """Measures the error of streams for each context and lookahead. Arguments are those of `measure_windows`."""
    length = round(options.chunk_seconds * encoder.sampling_rate)

    def run(samples: np.ndarray, context: float, lookahead: float) -> Outputs:
        chunks = (samples[start : start + length] for start in range(0, len(samples), length))
        parts = list(encoder.stream(chunks, context, lookahead))
        return {name: np.concatenate([part[name] for part in parts]) for name in encoder.outputs}

    rows = []
    for context in options.context_seconds:
        for lookahead in options.lookahead_seconds:
            found = errors(recordings, wholes, partial(run, context=context, lookahead=lookahead))
            rows.append({"context_seconds": context, "lookahead_seconds": lookahead, **found})
    return rows


def measure_padding(
    encoder: OnnxEncoder, masked: OnnxModel, recordings: list[np.ndarray], options: LongAudioArguments
) -> list[dict[str, float]]:
    """Measures what zeros after a clip change in the frames before them, without and with an attention mask.

    Args:
        encoder: Model without a mask.
        masked: The same model with a mask.
        recordings: Samples of each recording, whose beginnings are the clips.
        options: Options of the benchmark.
    """
    clips = [samples[: round(PADDED_SECONDS * encoder.sampling_rate)] for samples in recordings]
    wholes = [encoder.whole(clip) for clip in clips]

    def run(samples: np.ndarray, zeros: int, with_mask: bool) -> Outputs:
        audio = torch.from_numpy(np.pad(encoder.normalize(samples), (0, zeros))).unsqueeze(0)
        if with_mask:
            mask = (torch.arange(audio.shape[1]) < len(samples)).unsqueeze(0)
            outputs = {name: output[0].numpy() for name, output in masked(audio, mask).items()}
        else:
            outputs = encoder.run(audio[0].numpy())
        return {name: output[: encoder.count_frames(len(samples))] for name, output in outputs.items()}

    rows = []
    for seconds in options.padding_seconds:
        zeros = round(seconds * encoder.sampling_rate)
        found = [errors(clips, wholes, partial(run, zeros=zeros, with_mask=with_mask)) for with_mask in (False, True)]
        rows.append({"padding_seconds": seconds, "without_mask": found[0][LAST], "with_mask": found[1][LAST]})
    return rows


def measure_long_audio(options: LongAudioArguments) -> dict[str, Any]:
    """Exports the model, runs the recordings in all ways, and measures errors and memory.

    Args:
        options: Options of the benchmark.
    """
    num_layers, num_threads = load_config(options.model).num_hidden_layers, options.num_threads
    hidden_states = {num_layers // 2: MIDDLE, num_layers: LAST}
    with tempfile.TemporaryDirectory(prefix="hf_prunable-") as folder:
        paths = [f"{folder}/{name}.onnx" for name in ("model", "masked")]
        for path, with_mask in zip(paths, (False, True), strict=True):
            export_onnx(
                options.model, path, attention_mask=with_mask, hidden_states=hidden_states, latency_seconds=None
            )
        encoder, masked = OnnxEncoder(paths[0], num_threads), OnnxModel(paths[1], num_threads)
        recordings = join_clips(encoder, options.audio, options.recordings, options.recording_seconds)
        wholes = [encoder.whole(samples) for samples in recordings]
        return {
            **asdict(options),
            **{name: Path(getattr(options, name)).name for name in ("model", "audio", "output_dir")},
            "hidden_states": hidden_states,
            "feature_norm": masked.metadata["feature_norm"],
            "machine": describe_machine("cpu", num_threads),
            "windows": measure_windows(encoder, recordings, wholes, options),
            "streams": measure_streams(encoder, recordings, wholes, options),
            "padding": measure_padding(encoder, masked, recordings, options),
            "peak_bytes": {
                f"{seconds:g}": in_fresh_process(measure_memory, paths[0], seconds, num_threads)
                for seconds in (*options.window_seconds, options.recording_seconds)
            },
        }


def format_long_audio(result: dict[str, Any]) -> str:
    """Formats errors and memory as Markdown.

    Args:
        result: Result of `measure_long_audio`.
    """
    middle, last = (f"Error of hidden state {layer_idx}" for layer_idx in result["hidden_states"])
    windows = [
        (f"{row['window_seconds']:g} s", f"{row['overlap_seconds']:g} s", f"{row[MIDDLE]:.3f}", f"{row[LAST]:.3f}")
        for row in result["windows"]
    ]
    streams = [
        (f"{row['context_seconds']:g} s", f"{row['lookahead_seconds']:g} s", f"{row[MIDDLE]:.3f}", f"{row[LAST]:.3f}")
        for row in result["streams"]
    ]
    padding = [
        (f"{row['padding_seconds']:g} s", f"{row['without_mask']:.3f}", f"{row['with_mask']:.3f}")
        for row in result["padding"]
    ]
    memory = [(f"{seconds} s", f"{peak / MIB:.0f}") for seconds, peak in result["peak_bytes"].items()]
    return (
        f"{result['model']} ({result['feature_norm']} norm in the convolutions), {result['recordings']} recordings of "
        f"{result['recording_seconds']:g} s from joined clips. Error: norm of the difference from the whole recording, divided "
        "by the norm of the whole.\n\n"
        f"{markdown_table(('Window', 'Overlap on each side', middle, last), windows, 'rrrr')}\n\n"
        f"Streams in chunks of {result['chunk_seconds']:g} s:\n\n"
        f"{markdown_table(('Context', 'Lookahead', middle, last), streams, 'rrrr')}\n\n"
        f"Zeros after clips of {PADDED_SECONDS:g} s, error of the last hidden state of the frames before them:\n\n"
        f"{markdown_table(('Zeros', 'Without mask', 'With mask'), padding, 'rrr')}\n\n"
        f"Memory of one pass beside the model:\n\n{markdown_table(('Length', 'Peak (MiB)'), memory, 'rr')}\n\n"
        f"Measured on: {result['machine']}.\n"
    )


def main() -> None:
    (options,) = HfArgumentParser(LongAudioArguments).parse_args_into_dataclasses()
    result = measure_long_audio(options)
    save_result(Path(options.output_dir), "long_audio", result, format_long_audio(result))


if __name__ == "__main__":
    main()
