"""Differences between an ONNX file, run by onnxruntime, and the PyTorch model that it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..modeling.pretrained import PrunableModelMixin


if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Outputs of the models that the graph returns.
OUTPUTS = ("last_hidden_state", "logits", "embeddings")
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
            input_values: Audio of shape (batch, samples), float32.
            attention_mask: Mask of the same shape, 0 for padding; `None` for no padding.

        Returns:
            Outputs by name.

        Raises:
            ValueError: If a mask is given but the graph was exported without one.
        """
        values = {"input_values": input_values.numpy()}
        if "attention_mask" in self.inputs:
            mask = torch.ones_like(input_values) if attention_mask is None else attention_mask
            values["attention_mask"] = mask.long().numpy()
        elif attention_mask is not None:
            raise ValueError(
                "The file was exported without `attention_mask`. Give clips of equal length, or export it with the mask."
            )
        outputs = self.session.run(self.outputs, values)
        return {name: torch.from_numpy(output) for name, output in zip(self.outputs, outputs, strict=True)}


class TensorModel(nn.Module):
    """A model whose inputs and outputs are tensors, as `torch.onnx.export` needs them.

    Args:
        model: Model to wrap.
        output_hidden_states: Whether the outputs include the hidden states.
    """

    def __init__(self, model: PrunableModelMixin, output_hidden_states: bool):
        super().__init__()
        self.model = model
        self.output_hidden_states = output_hidden_states

    def named_outputs(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Returns the outputs by name; arguments are those of the model."""
        output = self.model(
            input_values, attention_mask=attention_mask, output_hidden_states=self.output_hidden_states
        )
        named = {name: output[name] for name in OUTPUTS if name in output}
        if self.output_hidden_states:
            # Copies, because the last one may be `last_hidden_state`, and torch 2.7 exports a tensor under one name only.
            hidden_states = enumerate(output.hidden_states)
            named |= {f"hidden_states.{layer_idx}": state.clone() for layer_idx, state in hidden_states}
        return named

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Returns the outputs in order; arguments are those of the model."""
        return tuple(self.named_outputs(input_values, attention_mask).values())


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
        return {"input_values": audio}
    lengths = torch.tensor([samples - samples * clip_idx // (2 * batch_size) for clip_idx in range(batch_size)])
    mask = (torch.arange(samples) < lengths.unsqueeze(1)).long()
    return {"input_values": audio * mask, "attention_mask": mask}


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
    inputs = random_batch(batch_size, seconds, sampling_rate, "attention_mask" in exported.inputs)
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
