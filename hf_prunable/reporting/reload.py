"""Check that a saved model loads in a fresh process and computes the same hidden states; that process also measures memory.

`verify_reload` starts that process, which runs this module:

    python -m hf_prunable.reporting.reload FOLDER INPUTS.safetensors OUTPUTS.safetensors --auto_class AutoModelForCTC

INPUTS holds `input_values` of shape (batch, samples). OUTPUTS gets one tensor per hidden state, named by its index, and in
its metadata the memory of the models that `--memory_of` names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from .footprint import peak_memory


logger = logging.get_logger(__name__)

# `python -m` imports the package first, and the package registers the Auto classes.
MODULE = "hf_prunable.reporting.reload"
# Last lines of a failed process that an error repeats: the end of a traceback, with its message.
ERROR_LINES = 20
# Entry of the metadata of OUTPUTS.
MEMORY = "memory"


@dataclass(frozen=True)
class MemoryCheck:
    """Models whose memory the fresh process measures.

    Attributes:
        sources: Folders or Hub ids of the checkpoints.
        num_samples: Length of the clip of the forward pass, in samples.
    """

    sources: Sequence[str] = ()
    num_samples: int = 0


@dataclass(frozen=True)
class Reload:
    """What a fresh process found.

    Attributes:
        largest_difference: Largest absolute difference over all hidden states.
        memory: Memory in bytes by source, see `peak_memory`; a source that could not be measured is left out.
    """

    largest_difference: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)


def verify_reload(
    folder: str | os.PathLike,
    input_values: torch.Tensor,
    hidden_states: Sequence[torch.Tensor],
    auto_class: str = "AutoModel",
    *,
    tolerance: float = 1e-5,
    memory_check: MemoryCheck = MemoryCheck(),
) -> Reload:
    """Loads a saved model in a fresh Python process and compares its hidden states with those of the model in memory.

    Args:
        folder: Folder of the saved model.
        input_values: Audio of shape (batch, samples).
        hidden_states: Hidden states of the model in memory for this audio, each of shape (batch, frames, hidden size),
            computed in evaluation mode, on the CPU, in the saved dtype.
        auto_class: Name of the Auto class of the saved head.
        tolerance: Largest allowed difference, relative to the largest absolute value of the hidden state. The process
            uses the same number of threads, so that the difference is 0 with the same attention implementation.
        memory_check: Models whose memory is measured in the same process.

    Returns:
        The largest difference, and the memory.

    Raises:
        RuntimeError: If the process fails, if a key is missing, unexpected or of another shape, or if the hidden states
            differ.
    """
    reloaded, memory = _run_fresh_process(os.fspath(folder), input_values, auto_class, memory_check)
    largest = _compare_hidden_states(os.fspath(folder), hidden_states, reloaded, tolerance)
    logger.info(f"{os.fspath(folder)} reloads in a fresh process; largest difference {largest:.3g}.")
    for source in memory_check.sources:
        if source not in memory:
            logger.warning(
                f"The memory of {source!r} could not be measured, so that report and card leave it out. It is measured on "
                "Linux, where the model fits into memory once more."
            )
    return Reload(largest, memory)


def _run_fresh_process(
    folder: str, input_values: torch.Tensor, auto_class: str, memory_check: MemoryCheck
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Returns the hidden states and the memory that a fresh process writes."""
    with tempfile.TemporaryDirectory(prefix="hf_prunable-") as scratch:
        inputs, outputs = Path(scratch) / "inputs.safetensors", Path(scratch) / "outputs.safetensors"
        save_file({"input_values": input_values.detach().cpu().contiguous()}, inputs)
        options = ["--auto_class", auto_class, "--num_threads", str(torch.get_num_threads())]
        if memory_check.sources:
            options += ["--memory_samples", str(memory_check.num_samples), "--memory_of", *memory_check.sources]
        completed = subprocess.run(
            [sys.executable, "-m", MODULE, folder, os.fspath(inputs), os.fspath(outputs), *options],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if completed.returncode != 0:
            tail = "\n".join(completed.stderr.splitlines()[-ERROR_LINES:])
            raise RuntimeError(
                f"The model in {folder!r} does not load in a fresh process with {auto_class} (exit status "
                f"{completed.returncode}). The end of its errors:\n{tail}"
            )
        with safe_open(outputs, framework="pt") as file:
            memory = json.loads((file.metadata() or {}).get(MEMORY, "{}"))
        return load_file(outputs), memory


def _compare_hidden_states(
    folder: str, expected: Sequence[torch.Tensor], reloaded: Mapping[str, torch.Tensor], tolerance: float
) -> float:
    """Returns the largest absolute difference; raises `RuntimeError` if the hidden states do not agree."""
    if len(reloaded) != len(expected):
        raise RuntimeError(
            f"Reloaded from {folder!r}, the model has {len(reloaded)} hidden states, and in memory {len(expected)}."
        )
    largest = 0.0
    for layer_idx, in_memory in enumerate(expected):
        found, in_memory = reloaded[str(layer_idx)].float(), in_memory.detach().cpu().float()
        if found.shape != in_memory.shape:
            raise RuntimeError(
                f"Reloaded from {folder!r}, hidden state {layer_idx} has the shape {tuple(found.shape)}, and in "
                f"memory {tuple(in_memory.shape)}."
            )
        difference, scale = float((found - in_memory).abs().max()), float(in_memory.abs().max())
        # The comparison is negated so that NaN fails.
        if not difference <= tolerance * scale:
            raise RuntimeError(
                f"Reloaded from {folder!r}, the model computes other values: hidden state {layer_idx} differs by "
                f"{difference:.3g}, with values of up to {scale:.3g}."
            )
        largest = max(largest, difference)
    return largest


def main() -> None:
    """Loads a model and writes its hidden states; exits with status 1 and the reason if its weights do not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="Folder of the saved model.")
    parser.add_argument("inputs", help="Safetensors file with `input_values`.")
    parser.add_argument("outputs", help="Safetensors file that the hidden states are written to.")
    parser.add_argument("--auto_class", default="AutoModel", help="Name of the Auto class of the saved head.")
    parser.add_argument("--num_threads", type=int, default=None, help="Number of CPU threads of torch.")
    parser.add_argument("--memory_of", nargs="+", default=[], help="Checkpoints whose memory is measured.")
    parser.add_argument("--memory_samples", type=int, default=0, help="Length of the clip of that measurement.")
    arguments = parser.parse_args()

    if arguments.num_threads is not None:
        torch.set_num_threads(arguments.num_threads)
    # Before anything is computed, as `peak_memory` asks for.
    memory = peak_memory(arguments.memory_of, arguments.memory_samples)
    auto_class = getattr(transformers, arguments.auto_class)
    model, loading_info = auto_class.from_pretrained(arguments.folder, output_loading_info=True)
    wrong = {kind: sorted(map(str, keys)) for kind, keys in loading_info.items() if keys}
    if wrong:
        sys.exit(f"The weights do not fit the configuration: {wrong}")

    input_values = load_file(arguments.inputs)["input_values"].to(model.dtype)
    with torch.inference_mode():
        hidden_states = model.eval()(input_values, output_hidden_states=True).hidden_states
    # Safetensors rejects tensors that share memory.
    states = {str(layer_idx): state.clone() for layer_idx, state in enumerate(hidden_states)}
    save_file(states, arguments.outputs, metadata={MEMORY: json.dumps(memory)})


if __name__ == "__main__":
    main()
