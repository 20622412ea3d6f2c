"""Check that a saved model loads in a fresh process and computes the same hidden states.

`verify_reload` starts that process, which runs this module:

    python -m hf_prunable.reporting.reload FOLDER INPUTS.safetensors OUTPUTS.safetensors --auto_class AutoModelForCTC

INPUTS holds `input_values` of shape (batch, samples). OUTPUTS gets one tensor per hidden state, named by its index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging


logger = logging.get_logger(__name__)

# `python -m` imports the package first, and the package registers the Auto classes.
MODULE = "hf_prunable.reporting.reload"
# Last lines of a failed process that an error repeats: the end of a traceback, with its message.
ERROR_LINES = 20


def verify_reload(
    folder: str | os.PathLike,
    input_values: torch.Tensor,
    hidden_states: Sequence[torch.Tensor],
    auto_class: str = "AutoModel",
    tolerance: float = 1e-5,
) -> float:
    """Loads a saved model in a fresh Python process and compares its hidden states with those of the model in memory.

    Args:
        folder: Folder of the saved model.
        input_values: Audio of shape (batch, samples).
        hidden_states: Hidden states of the model in memory for this audio, each of shape (batch, frames, hidden size),
            computed in evaluation mode, on the CPU, in the saved dtype.
        auto_class: Name of the Auto class of the saved head.
        tolerance: Largest allowed difference, relative to the largest absolute value of the hidden state. The process
            uses the same number of threads, so that the difference is 0 with the same attention implementation.

    Returns:
        Largest absolute difference over all hidden states.

    Raises:
        RuntimeError: If the process fails, if a key is missing, unexpected or of another shape, or if the hidden states
            differ.
    """
    reloaded = _hidden_states_in_fresh_process(os.fspath(folder), input_values, auto_class)
    largest = _compare_hidden_states(os.fspath(folder), hidden_states, reloaded, tolerance)
    logger.info(f"{os.fspath(folder)} reloads in a fresh process; largest difference {largest:.3g}.")
    return largest


def _hidden_states_in_fresh_process(
    folder: str, input_values: torch.Tensor, auto_class: str
) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory(prefix="hf_prunable-") as scratch:
        inputs, outputs = Path(scratch) / "inputs.safetensors", Path(scratch) / "outputs.safetensors"
        save_file({"input_values": input_values.detach().cpu().contiguous()}, inputs)
        options = ["--auto_class", auto_class, "--num_threads", str(torch.get_num_threads())]
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
        return load_file(outputs)


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
    arguments = parser.parse_args()

    if arguments.num_threads is not None:
        torch.set_num_threads(arguments.num_threads)
    auto_class = getattr(transformers, arguments.auto_class)
    model, loading_info = auto_class.from_pretrained(arguments.folder, output_loading_info=True)
    wrong = {kind: sorted(map(str, keys)) for kind, keys in loading_info.items() if keys}
    if wrong:
        sys.exit(f"The weights do not fit the configuration: {wrong}")

    input_values = load_file(arguments.inputs)["input_values"].to(model.dtype)
    with torch.inference_mode():
        hidden_states = model.eval()(input_values, output_hidden_states=True).hidden_states
    # Safetensors rejects tensors that share memory.
    save_file({str(layer_idx): state.clone() for layer_idx, state in enumerate(hidden_states)}, arguments.outputs)


if __name__ == "__main__":
    main()
