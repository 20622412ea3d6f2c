"""Differences between an ONNX file, run by onnxruntime, and the PyTorch model that it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .onnx_graph import AUDIO, MASK, TensorModel


if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Largest allowed difference, relative to the largest value of an output: above float32 rounding through 24 layers.
TOLERANCE = 1e-4


@dataclass
class Agreement:
    """Difference between onnxruntime and PyTorch on one batch.

    Attributes:
        batch_size: Number of clips; if the graph takes a mask, each is shorter than the one before.
        seconds: Length of the longest clip in seconds.
        difference: Largest absolute difference over all outputs.
        relative_difference: Largest difference relative to the largest absolute value of the output.
    """

    batch_size: int
    seconds: float
    difference: float
    relative_difference: float


class OnnxModel(nn.Module):
    """An exported model that is called like the original one, with CPU tensors.

    Args:
        path: ONNX file.
        num_threads: Number of CPU threads of onnxruntime; `None` takes torch's number.

    Attributes:
        inputs: Names of the inputs; the first one is the audio.
        outputs: Names of the outputs.
        metadata: Metadata of the file, see `hf_prunable.reporting.onnx_metadata.onnx_metadata`.
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
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Runs the graph.

        Args:
            input_values: Audio of shape (batch, samples), float32.
            attention_mask: Mask of the same shape, 0 for padding; `None` for no padding.

        Returns:
            Outputs by name.

        Raises:
            ValueError: If a mask is given but the graph was exported without one.
        """
        values = {self.inputs[0]: input_values.numpy()}
        if MASK in self.inputs:
            mask = torch.ones_like(input_values) if attention_mask is None else attention_mask
            values[MASK] = mask.long().numpy()
        elif attention_mask is not None:
            raise ValueError(
                "The file takes no mask. Give one clip at a time or clips of equal length, or export it with "
                "`attention_mask=True`."
            )
        outputs = self.session.run(self.outputs, values)
        return {name: torch.from_numpy(output) for name, output in zip(self.outputs, outputs, strict=True)}


def random_batch(batch_size: int, seconds: float, sampling_rate: int, attention_mask: bool) -> dict[str, torch.Tensor]:
    """Draws a batch of noise.

    Args:
        batch_size: Number of clips.
        seconds: Length of each clip in seconds.
        sampling_rate: Sampling rate in Hz.
        attention_mask: Whether to pad clips, with a mask: of N clips, clip i ends with a padded part of i / 2N.

    Returns:
        `input_values` and, with padding, `attention_mask`, of shape (batch, samples).
    """
    samples = round(seconds * sampling_rate)
    generator = torch.Generator().manual_seed(batch_size)
    audio = torch.randn(batch_size, samples, generator=generator)
    if not attention_mask:
        return {AUDIO: audio}
    lengths = torch.tensor([samples - samples * clip_idx // (2 * batch_size) for clip_idx in range(batch_size)])
    mask = (torch.arange(samples) < lengths.unsqueeze(1)).long()
    return {AUDIO: audio * mask, MASK: mask}


@torch.inference_mode()
def compare(graph: TensorModel, exported: OnnxModel, batch_size: int, seconds: float, sampling_rate: int) -> Agreement:
    """Compares onnxruntime and PyTorch on a batch of noise.

    Args:
        graph: PyTorch model.
        exported: The same model as an ONNX file.
        batch_size: Number of clips.
        seconds: Length of each clip in seconds.
        sampling_rate: Sampling rate in Hz.
    """
    inputs = random_batch(batch_size, seconds, sampling_rate, MASK in exported.inputs)
    expected, found = graph.named_outputs(**inputs), exported(**inputs)
    differences = {name: (found[name] - value).abs().max().item() for name, value in expected.items()}
    relative = [difference / expected[name].abs().max().item() for name, difference in differences.items()]
    # Unlike `max`, `amax` returns NaN if there is one.
    worst = torch.tensor([[*differences.values()], relative]).amax(1).tolist()
    return Agreement(batch_size, seconds, *worst)


def check_agreement(path: Path, agreements: Sequence[Agreement]) -> None:
    """Checks the differences of an ONNX file.

    Args:
        path: Output file, for the message.
        agreements: Differences on one or more batches.

    Raises:
        RuntimeError: If a difference is above `TOLERANCE`, relative to the largest value.
    """
    if all(agreement.relative_difference <= TOLERANCE for agreement in agreements):
        return
    found = "; ".join(
        f"{agreement.batch_size} x {agreement.seconds:g} s: {agreement.difference:.2e}, "
        f"{agreement.relative_difference:.2e} of the largest value"
        for agreement in agreements
    )
    raise RuntimeError(
        f"onnxruntime does not compute what PyTorch computes, so that {str(path)!r} was not written. Largest differences: "
        f"{found}; allowed is {TOLERANCE:.0e} of the largest value. Try another `opset_version`, and report the problem "
        "with the versions of torch, onnxscript and onnxruntime."
    )
