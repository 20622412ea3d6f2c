"""The command `hf-prunable export`: writes a model as an ONNX file.

hf-prunable export wavlm-pruned wavlm-pruned.onnx
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from transformers.hf_argparser import string_to_bool

from ..export import export_onnx
from ..runtime.command_parser import CommandParser
from ..runtime.console import console_output
from ..runtime.user_errors import user_errors


PROGRAM = "hf-prunable export"

logger = logging.getLogger("hf_prunable")


def make_parser() -> CommandParser:
    """Returns the parser of the command's options."""
    parser = CommandParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} MODEL FILE [--option value ...]",
        description="Writes a model as an ONNX file, and compares onnxruntime with PyTorch before the file gets its name.",
    )
    parser.add_argument("model_dir", metavar="MODEL", help="folder or Hub id of a stock or pruned checkpoint")
    parser.add_argument("path", metavar="FILE", help="output file, such as model.onnx")
    parser.add_argument(
        "--auto_class", help="Auto class of the model, such as AutoModelForCTC; by default that of the checkpoint"
    )
    parser.add_argument(
        "--attention_mask",
        type=string_to_bool,
        nargs="?",
        const=True,
        help="give the graph an input for the mask of padded samples; by default for all models but x-vectors",
    )
    parser.add_argument(
        "--output_hidden_states",
        type=string_to_bool,
        nargs="?",
        const=True,
        default=False,
        help="return the hidden states of all layers as well",
    )
    parser.add_argument("--opset_version", type=int, help="ONNX opset version; by default torch's")
    parser.add_argument(
        "--check_seconds",
        type=float,
        nargs="+",
        default=[0.5, 1.1, 2.3],
        help="clip length in seconds of each batch that is compared with PyTorch",
    )
    parser.add_argument(
        "--latency_seconds", type=float, default=10.0, help="clip length in seconds that latency is measured with"
    )
    parser.add_argument("--num_threads", type=int, help="CPU threads of the latency measurement; by default torch's")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file and shows its size, its agreement with PyTorch and its latency.

    Args:
        arguments: Options of the command; `None` for those of this process.
    """
    with console_output():
        options = make_parser().read(arguments)
        with user_errors(PROGRAM):
            export = export_onnx(**vars(options))
        latencies = ", ".join(
            f"{name} {latency.median_seconds * 1000:.1f} ms" for name, latency in export.latencies.items()
        )
        logger.info(
            f"{export.path}: {export.num_bytes / 2**20:.1f} MiB, opset {export.opset_version}. Latency of a clip of "
            f"{export.latency_seconds:g} s: {latencies}."
        )


if __name__ == "__main__":
    main()
