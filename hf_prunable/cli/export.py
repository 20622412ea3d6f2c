"""The command `hf-prunable export`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from transformers.hf_argparser import string_to_bool
from transformers.utils import logging

from ..export import CHECK_SECONDS, LATENCY_SECONDS, export_onnx
from ..reporting.onnx_graph import AUDIO
from ..runtime.command_parser import CommandParser
from ..runtime.console import console_output
from ..runtime.user_errors import user_errors


# The name is `__main__` when this module is run.
logger = logging.get_logger("hf_prunable.cli.export")

PROGRAM = "hf-prunable export"


def make_parser() -> CommandParser:
    """Returns the parser of the command's options."""
    parser = CommandParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} MODEL FILE [--option value ...]",
        description="Exports a model to ONNX, compares the file with PyTorch and measures the latency of both.",
    )
    parser.add_argument("model_dir", metavar="MODEL", help="folder or Hub id of a stock or pruned checkpoint")
    parser.add_argument("path", metavar="FILE", help="output file, such as model.onnx")
    parser.add_argument(
        "--auto_class", help="Auto class of the head, such as AutoModelForCTC; by default the saved one"
    )
    parser.add_argument(
        "--attention_mask",
        type=string_to_bool,
        nargs="?",
        const=True,
        default=False,
        help="let the graph take a mask of padding",
    )
    parser.add_argument(
        "--output_hidden_states",
        type=string_to_bool,
        nargs="?",
        const=True,
        default=False,
        help="also return the hidden states of all layers",
    )
    parser.add_argument(
        "--hidden_states",
        type=_named_hidden_state,
        nargs="+",
        metavar="INDEX=NAME",
        help="also return the hidden states of these indices under these names, such as 9=units9 12=unit12; 0 is the input of "
        "the first layer",
    )
    parser.add_argument("--input_name", default=AUDIO, help="name of the audio input")
    parser.add_argument("--opset_version", type=int, help="ONNX opset version; by default that of torch")
    parser.add_argument(
        "--check_seconds",
        type=float,
        nargs="+",
        default=list(CHECK_SECONDS),
        help="length in seconds of the clips of each batch that is compared with PyTorch",
    )
    parser.add_argument(
        "--latency_seconds",
        type=_optional_seconds,
        default=LATENCY_SECONDS,
        help="length in seconds of the clip that latency is measured on; 0 for no measurement",
    )
    parser.add_argument(
        "--num_threads", type=int, help="CPU threads of the latency measurement; by default as many as torch uses"
    )
    return parser


def _optional_seconds(text: str) -> float | None:
    return float(text) or None


def _named_hidden_state(text: str) -> tuple[int, str]:
    index, _, name = text.partition("=")
    if not re.fullmatch(r"\d+", index) or not name:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an index and a name. Give, for example, 9=units9 for the output of layer 9."
        )
    return int(index), name


def _by_index(pairs: Sequence[tuple[int, str]]) -> dict[int, str]:
    names = dict(pairs)
    if len(names) < len(pairs):
        given = " ".join(f"{index}={name}" for index, name in pairs)
        raise ValueError(f"`--hidden_states {given}` names an index twice. Give one name for each.")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports a model, and reports its agreement with PyTorch and the latency of both.

    Args:
        arguments: Arguments of the command; `None` for those of this process.
    """
    with console_output():
        options = make_parser().read(arguments)
        with user_errors(PROGRAM):
            if options.hidden_states is not None:
                options.hidden_states = _by_index(options.hidden_states)
            export = export_onnx(**vars(options))
        logger.info(
            f"{export.path}: {export.num_bytes / 2**20:.1f} MiB, opset {export.opset_version}, differs from PyTorch by at "
            f"most {export.largest_difference:.1e}."
        )
        for name, latency in export.latencies.items():
            logger.info(f"{name}: {1000 * latency.median_seconds:.1f} ms ({latency.speedup:.2f}x)")
        if export.latencies:
            logger.info(f"Measured with {export.latency_seconds:g} s of audio on: {export.machine}.")


if __name__ == "__main__":
    main()
