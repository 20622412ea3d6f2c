"""What a pruning run ends with: its record, the table of what it measured, and the check that its result loads."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from ..runtime.files import write_text_atomically
from .measurement import Latency, ModelSize


logger = logging.get_logger(__name__)

REPORT_FILE = "pruning_report.json"
LOSS_NAMES = {
    "distillation": "Distillation loss",
    "task": "Loss of the task",
    "both": "Distillation loss and loss of the task",
}
# Lines of a failed process that an error repeats: a traceback's end, with the message.
ERROR_LINES = 20


@dataclass
class HeldOutLoss:
    """The loss on held-out audio, without the constraint on sparsity, the same for all three models.

    Attributes:
        dense: Of the student before pruning. In distillation from itself it is 0.
        after_compaction: Of the small model as the gates leave it.
        after_final_steps: Of the model that is saved; `None` without further steps.
    """

    dense: float
    after_compaction: float
    after_final_steps: float | None = None


@dataclass
class PruningReport:
    """The record of one pruning run, of plain values that JSON can hold.

    Attributes:
        command: That started the run.
        versions: Of the libraries, by name.
        machine: What latency was measured on.
        seed: Of the run.
        model_name: The checkpoint that was pruned, as the user named it.
        family: Its model type: "wavlm", "hubert" or "wav2vec2".
        units: The kinds of units that had gates.
        steps: Optimizer steps, by stage.
        skipped_audio: How many audio files were left out, by cause.
        measure: What sparsity is counted in: "parameters", or the multiply-accumulates of a clip.
        target_sparsity: The part of the dense encoder's size that was to go.
        met_sparsity: The part that is gone.
        round_to: What widths were rounded to multiples of, which moves the size off the target; `None` without.
        objective: What the student learned from: "distillation", "task" or "both".
        dense_size: Of the encoder before.
        pruned_size: Of the encoder after.
        latency_seconds: Length of the clips that latency was measured with.
        latency_batch_size: How many such clips ran at once.
        dense_latency: Before.
        pruned_latency: After.
        held_out_loss: Before and after.
        shape: `PrunedShape.to_dict()` of the result.
        history: One entry a log step, with `step`, `stage` (1 with gates, 2 without), `loss`, `distillation_loss`,
            and in stage 1 `target_sparsity`, `expected_sparsity` and `deterministic_sparsity`.
        teacher_name: What it was distilled from, as the user named it; `None` for an objective without distillation.
        dataset_name: What it was trained on, as the user named it.
        commit: Of the source that made it: see `source_commit`.
    """

    command: str
    versions: dict[str, str]
    machine: str
    seed: int
    model_name: str
    family: str
    units: list[str]
    steps: dict[str, int]
    skipped_audio: dict[str, int]
    measure: str
    target_sparsity: float
    met_sparsity: float
    round_to: int | None
    objective: str
    dense_size: ModelSize
    pruned_size: ModelSize
    latency_seconds: float
    latency_batch_size: int
    dense_latency: Latency
    pruned_latency: Latency
    held_out_loss: HeldOutLoss
    shape: dict[str, Any]
    history: list[dict[str, Any]]
    teacher_name: str | None = None
    dataset_name: str | None = None
    commit: str | None = None

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes `pruning_report.json` into a folder; JSON has no NaN and no infinity, so these become null.

        Returns:
            The file.
        """
        path = Path(folder) / REPORT_FILE
        write_text_atomically(path, json.dumps(_finite(asdict(self)), indent=2, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> PruningReport:
        """Reads what `save` wrote.

        Args:
            path: The file, or the folder it is in.

        Raises:
            ValueError: If the file is no such report.
        """
        path = Path(path)
        if path.is_dir():
            path = path / REPORT_FILE
        values = json.loads(path.read_text(encoding="utf-8"))
        try:
            for names, nested in (
                (("dense_size", "pruned_size"), ModelSize),
                (("dense_latency", "pruned_latency"), Latency),
                (("held_out_loss",), HeldOutLoss),
            ):
                for name in names:
                    values[name] = nested(**values[name])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a pruning report of this hf_prunable: {error!r}.") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_table(report: PruningReport) -> str:
    """Dense and pruned model side by side, as a Markdown table and a note on how the figures came about."""
    sizes, latencies = (report.dense_size, report.pruned_size), (report.dense_latency, report.pruned_latency)
    loss = report.held_out_loss
    mac_clip, latency_clip = f"{report.dense_size.mac_seconds:g} s clip", f"{report.latency_seconds:g} s clip"
    if report.latency_batch_size > 1:
        latency_clip = f"batch of {report.latency_batch_size} {latency_clip}s"
    name, before = f"{LOSS_NAMES[report.objective]}, held-out audio", _loss(loss.dense)
    losses = [(name, before, _loss(loss.after_compaction), "")]
    if loss.after_final_steps is not None:
        losses = [
            (f"{name}, after compaction", before, _loss(loss.after_compaction), ""),
            (f"{name}, after the final steps", before, _loss(loss.after_final_steps), ""),
        ]
    rounded = "" if report.round_to is None else f", with widths rounded to multiples of {report.round_to}"
    rows = [
        ("", "dense", "pruned", "pruned / dense"),
        ("---", "---:", "---:", "---:"),
        (
            "Parameters of the encoder",
            *(f"{size.num_parameters:,}" for size in sizes),
            _percent(sizes[1].num_parameters / sizes[0].num_parameters),
        ),
        (
            f"Multiply-accumulates, {mac_clip}",
            *(f"{size.macs / 1e9:.3g} G" for size in sizes),
            _percent(sizes[1].macs / sizes[0].macs),
        ),
        (
            f"Latency, {latency_clip}",
            *(_milliseconds(latency) for latency in latencies),
            f"{latencies[1].speedup:.2f}x as fast",
        ),
        (
            "Real-time factor",
            *(f"{latency.real_time_factor:.3g}" for latency in latencies),
            _percent(latencies[1].real_time_factor / latencies[0].real_time_factor),
        ),
        *losses,
        ("Sparsity asked for", "", _percent(report.target_sparsity, 2), ""),
        (f"Sparsity met{rounded}", "", _percent(report.met_sparsity, 2), ""),
    ]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return (
        f"{table}\n\n"
        f"Sparsity is the part of all {report.measure} of the dense encoder that is gone. Latency is the median of runs of "
        "both models in turn, from the fastest to the slowest in brackets; the real-time factor is latency over the "
        f"length of the audio. Measured on: {report.machine}.\n"
    )


def _percent(part: float, decimals: int = 1) -> str:
    return f"{100 * part:.{decimals}f} %"


def _milliseconds(latency: Latency) -> str:
    median, fastest, slowest = (
        f"{1000 * seconds:.0f}" if seconds >= 0.1 else f"{1000 * seconds:.1f}"
        for seconds in (latency.median_seconds, latency.min_seconds, latency.max_seconds)
    )
    return f"{median} ms ({fastest} to {slowest})"


def _loss(value: float | None) -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.4f}"


def verify_reload(
    folder: str | os.PathLike,
    input_values: torch.Tensor,
    hidden_states: Sequence[torch.Tensor],
    auto_class: str = "AutoModel",
    tolerance: float = 1e-5,
) -> float:
    """Loads a saved model in a fresh Python process and holds its hidden states against those of the model in memory.

    Args:
        folder: A saved model.
        input_values: Audio, of shape (batch, samples).
        hidden_states: What the model in memory computes from it in evaluation mode, on the CPU, in the dtype it was
            saved in.
        auto_class: Auto class of the kind of head that was saved.
        tolerance: The largest difference allowed in a hidden state, as a part of its largest value. With the same
            number of threads, which the process is given, and the same attention implementation it is 0.

    Returns:
        The largest difference of a value in any hidden state.

    Raises:
        RuntimeError: If the process fails, a key is missing, unexpected or of the wrong shape, or the hidden states
            differ.
    """
    with tempfile.TemporaryDirectory(prefix="hf_prunable-") as scratch:
        inputs, outputs = Path(scratch) / "inputs.safetensors", Path(scratch) / "outputs.safetensors"
        save_file({"input_values": input_values.detach().cpu().contiguous()}, inputs)
        options = ["--auto_class", auto_class, "--num_threads", str(torch.get_num_threads())]
        module = f"{__package__}.reload_check"
        completed = subprocess.run(
            [sys.executable, "-m", module, os.fspath(folder), os.fspath(inputs), os.fspath(outputs), *options],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if completed.returncode != 0:
            tail = "\n".join(completed.stderr.splitlines()[-ERROR_LINES:])
            raise RuntimeError(
                f"The model in {os.fspath(folder)!r} does not load in a fresh process with {auto_class} (exit status "
                f"{completed.returncode}). The end of its errors:\n{tail}"
            )
        reloaded = load_file(outputs)
    if len(reloaded) != len(hidden_states):
        raise RuntimeError(
            f"Reloaded from {os.fspath(folder)!r}, the model has {len(reloaded)} hidden states, and in memory "
            f"{len(hidden_states)}."
        )
    largest = 0.0
    for number, expected in enumerate(hidden_states):
        found = reloaded[str(number)]
        if found.shape != expected.shape:
            raise RuntimeError(
                f"Reloaded from {os.fspath(folder)!r}, hidden state {number} has the shape {tuple(found.shape)}, and in "
                f"memory {tuple(expected.shape)}."
            )
        expected = expected.detach().cpu().float()
        difference = float((found.float() - expected).abs().max())
        # Written so that NaN fails.
        if not difference <= tolerance * float(expected.abs().max()):
            raise RuntimeError(
                f"Reloaded from {os.fspath(folder)!r}, the model computes something else: hidden state {number} differs "
                f"by {difference:.3g}, with values of up to {float(expected.abs().max()):.3g}."
            )
        largest = max(largest, difference)
    logger.info(f"{os.fspath(folder)} reloads in a fresh process; largest difference {largest:.3g}.")
    return largest
