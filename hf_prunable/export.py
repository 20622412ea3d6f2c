"""Export to ONNX with dynamic batch size and length; a file is only kept if onnxruntime agrees with PyTorch.

python -m hf_prunable.export CHECKPOINT FILE.onnx
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from .modeling.checkpoint_weights import check_weights
from .modeling.inference import make_layers_fast_
from .modeling.loading import load_prunable, saved_auto_class
from .modeling.pretrained import PrunableModelMixin
from .reporting.measurement import Latency, describe_machine, measure_latency
from .reporting.onnx_agreement import Agreement, OnnxModel, check_agreement, compare, random_batch
from .reporting.onnx_graph import (
    AUDIO,
    MASK,
    OUTPUTS,
    TensorModel,
    check_value_name,
    name_hidden_states,
    trace,
    write,
)
from .reporting.onnx_metadata import onnx_metadata
from .runtime.auto_classes import AUDIO_XVECTOR
from .runtime.files import replacing


logger = logging.get_logger(__name__)

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# torch writes larger weights to a second file, and two files cannot be replaced in one step.
SINGLE_FILE_BYTES = 1536 * 2**20
# Lengths of the clips that the graph is checked and timed with.
CHECK_SECONDS, LATENCY_SECONDS = (0.5, 1.1, 2.3), 10.0
# Batch size and length of the traced batch, unlike those of all checked batches.
TRACED_CLIPS, TRACED_SECONDS = 4, 1.7
# With a mask, stock x-vector heads loop over the clips of a batch, which a graph with a dynamic batch size cannot.
WITHOUT_MASK = (AUDIO_XVECTOR,)


@dataclass
class OnnxExport:
    """An exported model.

    Attributes:
        path: ONNX file.
        auto_class: Name of the Auto class of the exported head.
        inputs: Names of the inputs: the audio (float32, batch x samples) and, if taken, "attention_mask" (int64, same
            shape).
        outputs: Names of the outputs, in order.
        metadata: Metadata of the file, see `hf_prunable.reporting.onnx_metadata.onnx_metadata`.
        opset_version: ONNX opset version.
        num_bytes: File size in bytes.
        agreements: Differences between onnxruntime and PyTorch, one per checked batch.
        latencies: Latencies of "PyTorch" and "onnxruntime"; empty if not measured.
        latency_seconds: Length in seconds of the clip that latency was measured on; `None` if not measured.
        machine: Hardware of the measurement.
    """

    path: Path
    auto_class: str
    inputs: list[str]
    outputs: list[str]
    metadata: dict[str, str]
    opset_version: int
    num_bytes: int
    agreements: list[Agreement]
    latencies: dict[str, Latency]
    latency_seconds: float | None
    machine: str

    @property
    def largest_difference(self) -> float:
        """Largest absolute difference between onnxruntime and PyTorch over all batches and outputs."""
        return max(agreement.difference for agreement in self.agreements)


def export_onnx(  # noqa: PLR0913 - a public function whose options are keywords
    model_dir: str | Path,
    path: str | Path,
    *,
    auto_class: str | None = None,
    attention_mask: bool = False,
    output_hidden_states: bool = False,
    hidden_states: Mapping[int, str] | None = None,
    input_name: str = AUDIO,
    opset_version: int | None = None,
    check_seconds: Sequence[float] = CHECK_SECONDS,
    latency_seconds: float | None = LATENCY_SECONDS,
    num_threads: int | None = None,
) -> OnnxExport:
    """Exports a stock or pruned checkpoint to an ONNX file in float32, with dynamic batch size and length.

    The file is compared with PyTorch on batches of 1, 2, 3, ... clips before it gets its name. After an error, an existing
    file of that name is unchanged. Audio for checks and latency has the sampling rate of the checkpoint's feature
    extractor, or 16 kHz for a checkpoint without one.

    There are more than six parameters because each is an independent keyword of a public function, as in
    `torch.onnx.export`.

    Args:
        model_dir: Folder or Hub id of a checkpoint without gates.
        path: Output file.
        auto_class: Name of the Auto class of the head; `None` takes the saved one.
        attention_mask: Whether the graph takes a mask that is 1 for audio and 0 for padding. Without one, clips of a batch
            must be equally long. The graph of x-vectors cannot take one.
        output_hidden_states: Whether the graph also returns all hidden states, as "hidden_states.0" and so on.
        hidden_states: Names of further outputs by the index of a hidden state; 0 is the input of the first layer and n the
            output of layer n, as in the model's `hidden_states`. `None` for none.
        input_name: Name of the audio input.
        opset_version: ONNX opset version; `None` takes torch's default.
        check_seconds: Length in seconds of the clips of each checked batch.
        latency_seconds: Length in seconds of the clip that latency is measured on; `None` skips the measurement.
        num_threads: Number of CPU threads of that measurement; `None` takes torch's number.

    Returns:
        Description of the file, with the differences and latencies that were measured.

    Raises:
        ImportError: If a package that only the export needs is not installed.
        TypeError: If `hidden_states` is not a dict of texts by integers, or a name is not a text.
        ValueError: If the checkpoint has gates, lacks weights or is too large for one file, or an option is invalid.
        RuntimeError: If onnxruntime and PyTorch disagree.
    """
    target = Path(path)
    _check_request(target, check_seconds, input_name)
    auto_class = auto_class or saved_auto_class(model_dir)
    if attention_mask and auto_class in WITHOUT_MASK:
        raise ValueError(f"{auto_class} cannot be exported with `attention_mask`. Leave it out, or give False.")
    model = _load(model_dir, auto_class)
    names = name_hidden_states(hidden_states, output_hidden_states, model.config.num_hidden_layers, input_name)
    metadata = onnx_metadata(model, model_dir, auto_class, names)
    sampling_rate = int(metadata["sampling_rate"])
    _check_lengths(check_seconds, sampling_rate, int(metadata["frame_length"]))
    graph = TensorModel(model, names).eval()
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        traced_batch = random_batch(TRACED_CLIPS, TRACED_SECONDS, sampling_rate, attention_mask)
        program = trace(graph, traced_batch, input_name, opset_version)
        _check_opset(program.model.opset_imports[""], opset_version)
        write(program, partial, metadata)
        exported = OnnxModel(partial, num_threads)
        agreements = [
            compare(graph, exported, batch_size, seconds, sampling_rate)
            for batch_size, seconds in enumerate(check_seconds, start=1)
        ]
        check_agreement(target, agreements)
        latencies = {}
        if latency_seconds is not None:
            # Tracing is done, so that PyTorch can use its fast layers too.
            make_layers_fast_(model.base_model)
            latencies = measure_latency(
                {"PyTorch": model, "onnxruntime": exported},
                seconds=latency_seconds,
                num_threads=num_threads,
                sampling_rate=sampling_rate,
            )
    export = OnnxExport(
        path=target,
        auto_class=auto_class,
        inputs=exported.inputs,
        outputs=exported.outputs,
        metadata=exported.metadata,
        opset_version=program.model.opset_imports[""],
        num_bytes=target.stat().st_size,
        agreements=agreements,
        latencies=latencies,
        latency_seconds=latency_seconds,
        machine=describe_machine("cpu", num_threads),
    )
    logger.info(f"{target}: onnxruntime and PyTorch differ by at most {export.largest_difference:.1e}.")
    return export


def _check_request(target: Path, check_seconds: Sequence[float], input_name: str) -> None:
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise ImportError(f"Export needs {', '.join(missing)}. Install `pip install hf_prunable[export]`.")
    if target.is_dir():
        raise ValueError(f"{str(target)!r} is a folder. Give the name of a file, such as 'model.onnx' in it.")
    if not check_seconds or min(check_seconds) <= 0:
        raise ValueError(f"`check_seconds` must be one or more positive lengths, but is {tuple(check_seconds)}.")
    check_value_name(input_name, "`input_name`")
    if input_name in (MASK, *OUTPUTS):
        raise ValueError(f"`input_name` is {input_name!r}, the name of another input or output. Give another one.")


def _check_lengths(check_seconds: Sequence[float], sampling_rate: int, frame_length: int) -> None:
    if min(check_seconds) * sampling_rate < frame_length:
        raise ValueError(
            f"`check_seconds` has {min(check_seconds):g} s; the shortest clip of this model has "
            f"{frame_length / sampling_rate:g} s. Give longer ones."
        )


def _check_opset(written: int, opset_version: int | None) -> None:
    """Checks the version of a graph; torch keeps its own where it cannot convert to the requested one."""
    if opset_version is not None and written != opset_version:
        raise ValueError(
            f"`opset_version` {opset_version} cannot be written; torch wrote {written}. Give that, or none."
        )


def _load(model_dir: str | Path, auto_class: str) -> PrunableModelMixin:
    # `output_loading_info` makes `from_pretrained` return a pair, which its annotation leaves out.
    loaded: Any = load_prunable(model_dir, auto_class, dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    # SpecAugment's mask embedding is not used in inference, and many checkpoints lack it.
    check_weights(
        model_dir, {"missing": [key for key in info["missing_keys"] if not key.endswith("masked_spec_embed")]}
    )
    num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if num_bytes > SINGLE_FILE_BYTES:
        raise ValueError(
            f"{str(model_dir)!r} has {num_bytes / 2**20:.0f} MiB of weights in float32; one ONNX file holds "
            f"{SINGLE_FILE_BYTES / 2**20:.0f}. Prune it to a smaller size first."
        )
    return model.prepare_for_inference_(standard_layers_only=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command `hf-prunable export`.

    Args:
        arguments: Arguments of the command; `None` for those of this process.
    """
    # The commands are in the room above, which is imported only where one of them is run.
    import_module("hf_prunable.cli.export").main(arguments)


if __name__ == "__main__":
    main()
