"""The graph of an ONNX file: its inputs and outputs, and how it is traced and written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..modeling.pretrained import PrunableModelMixin


# Names of the inputs: audio, float32, and mask, int64, both of shape (batch, samples).
AUDIO, MASK = "input_values", "attention_mask"
# Outputs of the models that the graph returns.
OUTPUTS = ("last_hidden_state", "logits", "embeddings")
VALUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
# Node metadata of torch that names folders of the exporting machine.
STACK_TRACE = "pkg.torch.onnx.stack_trace"


def name_hidden_states(
    chosen: Mapping[int, str] | None, all_states: bool, num_layers: int, input_name: str = AUDIO
) -> dict[int, str]:
    """Returns the names of the hidden states that a graph returns, by index, after checking them.

    Args:
        chosen: Names by index; 0 is the input of the first layer and n the output of layer n. `None` for none.
        all_states: Whether to return every hidden state, as "hidden_states.0" and so on.
        num_layers: Number of layers of the model.
        input_name: Name of the audio input.

    Raises:
        TypeError: If `chosen` is not a mapping of integers to texts.
        ValueError: If the model has no such hidden state, a name cannot be used or is used twice, or both all and some
            hidden states are asked for.
    """
    if chosen is None:
        indices = range(num_layers + 1) if all_states else ()
        return {layer_idx: f"hidden_states.{layer_idx}" for layer_idx in indices}
    if all_states:
        raise ValueError(
            "Both `hidden_states` and `output_hidden_states` are given. Give the first for chosen layers with names of your "
            "own, or the second for all layers."
        )
    if not isinstance(chosen, Mapping):
        raise TypeError(
            f"`hidden_states` is {chosen!r}, a {type(chosen).__name__}; give a dict of names by index, such as "
            '{9: "units9", 12: "unit12"}.'
        )
    taken = {input_name, MASK, *OUTPUTS}
    for layer_idx, name in chosen.items():
        _check_index(layer_idx, num_layers)
        check_value_name(name, f"The name of hidden state {layer_idx}")
        if name in taken:
            raise ValueError(
                f"The name of hidden state {layer_idx}, {name!r}, is that of another input or output. Give another name than "
                f"{', '.join(sorted(taken))}."
            )
        taken.add(name)
    return dict(chosen)


def _check_index(layer_idx: object, num_layers: int) -> None:
    if isinstance(layer_idx, bool) or not isinstance(layer_idx, int):
        raise TypeError(
            f"`hidden_states` has the index {layer_idx!r}, a {type(layer_idx).__name__}; give integers from 0 to {num_layers}."
        )
    if not 0 <= layer_idx <= num_layers:
        raise ValueError(
            f"There is no hidden state {layer_idx}: the model has {num_layers} layers, so that indices go from 0, the input of "
            f"the first layer, to {num_layers}, the output of the last one."
        )


def check_value_name(name: object, what: str) -> None:
    """Checks the name of an input or output.

    Args:
        name: Name.
        what: Subject of the error's sentence.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it has other characters than letters, digits, "_" and ".", or does not begin with a letter or "_".
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} is {name!r}, a {type(name).__name__}; give a text.")
    if not VALUE_NAME.fullmatch(name):
        raise ValueError(
            f"{what} is {name!r}; give a letter or '_', followed by letters, digits, '_' and '.', in ASCII."
        )


class TensorModel(nn.Module):
    """A model whose inputs and outputs are tensors, as `torch.onnx.export` needs them.

    Args:
        model: Model to wrap.
        hidden_states: Output names of hidden states, by index.
    """

    def __init__(self, model: PrunableModelMixin, hidden_states: Mapping[int, str]):
        super().__init__()
        self.model = model
        self.hidden_states = hidden_states

    def named_outputs(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Returns the outputs by name; arguments are those of the model."""
        output = self.model(input_values, attention_mask=attention_mask, output_hidden_states=bool(self.hidden_states))
        named = {name: output[name] for name in OUTPUTS if name in output}
        # Copies, because the last one may be `last_hidden_state`, and torch 2.7 exports a tensor under one name only.
        named |= {name: output.hidden_states[layer_idx].clone() for layer_idx, name in self.hidden_states.items()}
        return named

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Returns the outputs in order; arguments are those of the model."""
        return tuple(self.named_outputs(input_values, attention_mask).values())


@torch.no_grad()
def trace(
    graph: TensorModel, inputs: dict[str, torch.Tensor], input_name: str = AUDIO, opset_version: int | None = None
) -> torch.onnx.ONNXProgram:
    """Traces a graph on a batch, with dynamic batch size and length.

    Args:
        graph: Model to trace.
        inputs: Audio and, for a graph with a mask, the mask.
        input_name: Name of the audio input.
        opset_version: ONNX opset version; `None` takes torch's default.
    """
    program = torch.onnx.export(
        graph,
        tuple(inputs.values()),
        dynamo=True,
        input_names=[input_name, *list(inputs)[1:]],
        output_names=list(graph.named_outputs(**inputs)),
        dynamic_shapes=tuple({0: "batch", 1: "samples"} for _ in inputs),
        opset_version=opset_version,
        verbose=False,
    )
    # `export` returns `None` only without `dynamo`.
    assert program is not None
    _rename_inner_values(program)
    return program


def _rename_inner_values(program: torch.onnx.ONNXProgram) -> None:
    """Gives values inside the graph, such as "linear", other names than those of its inputs and outputs."""
    graph = program.model.graph
    public = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    for node in graph.all_nodes():
        for value in node.outputs:
            if public.get(value.name, value) is not value:
                value.name = f"{value.name}.inner"


def write(program: torch.onnx.ONNXProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes a traced graph as one file that does not name folders of this machine.

    Args:
        program: Traced graph.
        path: Output file.
        metadata: Metadata of the file.
    """
    program.model.metadata_props.update(metadata)
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop(STACK_TRACE, None)
    program.save(path, external_data=False)
