"""Loads a saved model as a user would and writes its hidden states: what `report.verify_reload` runs.

    python -m hf_prunable.reporting.reload_check FOLDER INPUTS.safetensors OUTPUTS.safetensors --auto_class AutoModelForCTC

INPUTS holds `input_values`, of shape (batch, samples); OUTPUTS gets one tensor a hidden state, named by its number.
"""

from __future__ import annotations

import argparse
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file


# Run as a module of the package, which registers the Auto classes before this file is read.


def main() -> None:
    """Fails, with the reason on the error stream, when a key is missing, unexpected or of the wrong shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("inputs")
    parser.add_argument("outputs")
    parser.add_argument("--auto_class", default="AutoModel")
    parser.add_argument("--num_threads", type=int, default=None)
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
    # Tensors that share memory cannot be saved.
    save_file({str(number): state.clone() for number, state in enumerate(hidden_states)}, arguments.outputs)


if __name__ == "__main__":
    main()
