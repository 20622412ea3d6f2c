"""Export to ONNX, at any batch size and length; a file gets its name only when onnxruntime agrees with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .modeling.inference import make_layers_fast_
from .modeling.loading import load_prunable, saved_auto_class
from .modeling.pretrained import check_weights
from .modeling.size import SAMPLING_RATE
from .reporting.measurement import Latency, describe_machine, measure_latency
from .runtime.auto_classes import AUDIO_XVECTOR
from .runtime.files import replacing


if TYPE_CHECKING:
    from onnxruntime import InferenceSession

logger = logging.get_logger(__name__)

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# What a model returns, as far as a graph hands it on.
OUTPUTS = ("last_hidden_state", "logits", "embeddings")
# In parts of an output's largest value. float32 rounding through 24 layers stays below; another function does not.
TOLERANCE = 1e-4
# Above it torch puts the weights into a second file, and two files cannot take their places in one step.
SINGLE_FILE_BYTES = 1536 * 2**20
# The traced clips have another number and length than any that are checked.
TRACED_CLIPS, TRACED_SECONDS = 4, 1.7
# A stock x-vector head goes through the clips of a batch one by one when it has a mask, which no graph can.
WITHOUT_MASK = (AUDIO_XVECTOR,)


@dataclass
class Agreement:
    """How far onnxruntime is from PyTorch on one batch.

    Attributes:
        batch_size: Clips, each shorter than the one before where the graph takes a mask.
        seconds: Of the longest.
        difference: The largest anywhere in the outputs.
        relative_difference: The largest in parts of the output's largest value.
    """

    batch_size: int
    seconds: float
    difference: float
    relative_difference: float


@dataclass
class OnnxExport:
    """An exported model.

    Attributes:
        path: Of the file.
        auto_class: The kind of head that the graph has, by the name of its Auto class.
        inputs: Names: "input_values" (float32, batch x samples) and, if taken, "attention_mask" (int64, the same).
        outputs: Names, in order.
        opset_version: Of the file.
        num_bytes: Its size.
        agreements: With PyTorch, batch by batch.
        latencies: Of "PyTorch" and "onnxruntime", measured in turn; empty if not asked for.
        latency_seconds: Length of the one clip they were measured on.
        machine: That ran both.
    """

    path: Path
    auto_class: str
    inputs: list[str]
    outputs: list[str]
    opset_version: int
    num_bytes: int
    agreements: list[Agreement]
    latencies: dict[str, Latency]
    latency_seconds: float | None
    machine: str

    @property
    def largest_difference(self) -> float:
        """Between onnxruntime and PyTorch, anywhere in the outputs of all batches."""
        return max(agreement.difference for agreement in self.agreements)


class OnnxModel(nn.Module):
    """An exported file, called as the model it came from is, on tensors of the CPU.

    Args:
        path: Of the file.
        num_threads: CPU threads of onnxruntime; `None` takes as many as torch uses.
    """

    def __init__(self, path: str | Path, num_threads: int | None = None):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or torch.get_num_threads()
        self.session: InferenceSession = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Runs the graph.

        Args:
            input_values: Of shape (batch, samples).
            attention_mask: 0 where a clip is padded, of the same shape; `None`: nowhere.

        Returns:
            The outputs by name.

        Raises:
            ValueError: If there is a mask, but the graph was exported without one.
        """
        values = {"input_values": input_values.numpy()}
        if "attention_mask" in self.inputs:
            mask = torch.ones_like(input_values) if attention_mask is None else attention_mask
            values["attention_mask"] = mask.long().numpy()
        elif attention_mask is not None:
            raise ValueError(
                "The file was exported without `attention_mask`. Give clips of one length, or export it with the mask."
            )
        outputs = self.session.run(self.outputs, values)
        return {name: torch.from_numpy(output) for name, output in zip(self.outputs, outputs, strict=True)}


class _Graph(nn.Module):
    """A model that takes and returns plain tensors."""

    def __init__(self, model: PreTrainedModel, output_hidden_states: bool):
        super().__init__()
        self.model = model
        self.output_hidden_states = output_hidden_states

    def named_outputs(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        output = self.model(
            input_values, attention_mask=attention_mask, output_hidden_states=self.output_hidden_states
        )
        named = {name: output[name] for name in OUTPUTS if name in output}
        if self.output_hidden_states:
            named |= {f"hidden_states.{number}": state for number, state in enumerate(output.hidden_states)}
        return named

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        return tuple(self.named_outputs(input_values, attention_mask).values())


def export_onnx(
    model_dir: str | Path,
    path: str | Path,
    *,
    auto_class: str | None = None,
    attention_mask: bool | None = None,
    output_hidden_states: bool = False,
    opset_version: int | None = None,
    check_seconds: Sequence[float] = (0.5, 1.1, 2.3),
    latency_seconds: float | None = 10.0,
    num_threads: int | None = None,
) -> OnnxExport:
    """Writes a stock or pruned checkpoint as an ONNX file in float32, at any batch size and length.

    onnxruntime reads the file and is held against PyTorch, on batches of 1, 2, 3, ... clips. The file gets its name when
    all that is done; a file that had the name is replaced, and stays what it was after an error.

    Args:
        model_dir: A folder or a Hub id, without gates.
        path: Of the file.
        auto_class: The kind of head, by the name of its Auto class; by default the one that was saved.
        attention_mask: Whether the graph takes a mask of the samples that are not padding. By default it does, but for
            x-vectors, which cannot: their clips must have one length. A mask of ones is the same as none.
        output_hidden_states: Whether the graph also returns "hidden_states.0" and so on.
        opset_version: Of ONNX; `None` takes torch's choice.
        check_seconds: Length of the clips in each batch that is checked.
        latency_seconds: Length of the clip that onnxruntime's and PyTorch's speed is measured on; `None`: not measured.
        num_threads: CPU threads for that; `None` takes as many as torch uses.

    Raises:
        ImportError: If packages are missing that only the export needs.
        ValueError: If the checkpoint has gates, is not whole or is too large for one file, or an option is impossible.
        RuntimeError: If onnxruntime and PyTorch disagree.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise ImportError(f"Export needs {', '.join(missing)}. Install `pip install hf_prunable[export]`.")
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"{str(path)!r} is a folder. Give the name of a file, such as 'model.onnx' in it.")
    if not check_seconds or min(check_seconds) <= 0:
        raise ValueError(f"`check_seconds` must be one or more positive lengths, but is {tuple(check_seconds)}.")
    auto_class = auto_class or saved_auto_class(model_dir)
    if attention_mask is None:
        attention_mask = auto_class not in WITHOUT_MASK
    elif attention_mask and auto_class in WITHOUT_MASK:
        raise ValueError(f"{auto_class} cannot be exported with `attention_mask`. Leave it out, or give False.")
    model = _load(model_dir, auto_class)
    graph = _Graph(model, output_hidden_states)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        used_opset_version = _write(graph, partial, attention_mask, opset_version)
        exported = OnnxModel(partial, num_threads)
        with torch.inference_mode():
            agreements = [
                _compare(graph, exported, number, seconds) for number, seconds in enumerate(check_seconds, start=1)
            ]
        _check_agreement(target, agreements)
        latencies = {}
        if latency_seconds is not None:
            # What PyTorch can do when nothing is to be traced.
            make_layers_fast_(model.base_model)
            models = {"PyTorch": model, "onnxruntime": exported}
            latencies = measure_latency(models, seconds=latency_seconds, num_threads=num_threads)
    export = OnnxExport(
        target,
        auto_class,
        exported.inputs,
        exported.outputs,
        used_opset_version,
        target.stat().st_size,
        agreements,
        latencies,
        latency_seconds,
        describe_machine("cpu", num_threads),
    )
    logger.info(f"{target}: onnxruntime and PyTorch are at most {export.largest_difference:.1e} apart.")
    return export


def _load(model_dir: str | Path, auto_class: str) -> PreTrainedModel:
    model, info = load_prunable(model_dir, auto_class, dtype=torch.float32, output_loading_info=True)
    # The vector that SpecAugment puts over frames takes no part in inference, and many checkpoints are without it.
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


@torch.no_grad()
def _write(graph: _Graph, path: Path, attention_mask: bool, opset_version: int | None) -> int:
    """Traces the graph and returns the file's opset version."""
    inputs = _random_batch(TRACED_CLIPS, TRACED_SECONDS, attention_mask)
    program = torch.onnx.export(
        graph,
        tuple(inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=list(graph.named_outputs(**inputs)),
        dynamic_shapes=tuple({0: "batch", 1: "samples"} for _ in inputs),
        opset_version=opset_version,
        verbose=False,
    )
    program.save(path, external_data=False)
    return program.model.opset_imports[""]


def _random_batch(batch_size: int, seconds: float, attention_mask: bool) -> dict[str, torch.Tensor]:
    """Noise; with a mask, clip n of N lacks the last n / 2N of its length."""
    samples = round(seconds * SAMPLING_RATE)
    generator = torch.Generator().manual_seed(batch_size)
    audio = torch.randn(batch_size, samples, generator=generator)
    if not attention_mask:
        return {"input_values": audio}
    lengths = torch.tensor([samples - samples * number // (2 * batch_size) for number in range(batch_size)])
    mask = (torch.arange(samples) < lengths.unsqueeze(1)).long()
    return {"input_values": audio * mask, "attention_mask": mask}


def _compare(graph: _Graph, exported: OnnxModel, batch_size: int, seconds: float) -> Agreement:
    inputs = _random_batch(batch_size, seconds, "attention_mask" in exported.inputs)
    expected, found = graph.named_outputs(**inputs), exported(**inputs)
    differences = {name: (found[name] - value).abs().max().item() for name, value in expected.items()}
    relative = [difference / expected[name].abs().max().item() for name, difference in differences.items()]
    # NaN is no number that `max` would find.
    worst = torch.tensor([[*differences.values()], relative]).amax(1).tolist()
    return Agreement(batch_size, seconds, *worst)


def _check_agreement(path: Path, agreements: list[Agreement]) -> None:
    if all(agreement.relative_difference <= TOLERANCE for agreement in agreements):
        return
    found = "; ".join(
        f"{agreement.batch_size} x {agreement.seconds:g} s: {agreement.difference:.2e}, "
        f"{agreement.relative_difference:.2e} of the largest value"
        for agreement in agreements
    )
    raise RuntimeError(
        f"onnxruntime does not compute what PyTorch does, so {str(path)!r} was not written. Largest differences: {found}; "
        f"allowed is {TOLERANCE:.0e} of the largest value. Try another `opset_version`, and report it with the versions "
        "of torch, onnxscript and onnxruntime."
    )
