"""The transformer layers of an encoder: where a model keeps them, and what goes into and out of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.auto import FAMILIES
from ..runtime.evaluation_mode import evaluation_mode
from ..runtime.messages import first_names


LAYER_COUNT = "num_hidden_layers"


def is_supported_family(config: PreTrainedConfig) -> bool:
    """Returns whether a configuration is of a family with prunable classes, stock or prunable.

    Args:
        config: Configuration of a model.
    """
    return any(
        config.model_type in (prunable.model_type, prunable.stock_config_class.model_type) for prunable in FAMILIES
    )


def check_layer_count(config: PreTrainedConfig) -> None:
    """Checks that a configuration counts its layers.

    Args:
        config: Configuration of a model.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(getattr(config, LAYER_COUNT, None), int):
        raise ValueError(
            f"The configuration of a model of type {config.model_type!r} has no `{LAYER_COUNT}`. Give a model with one stack of "
            "transformer layers; of a model with several parts, give the audio encoder."
        )


def layers_name(model: PreTrainedModel) -> str:
    """Returns the name of the module list of a model's transformer layers, such as "encoder.layers".

    In other families than those with prunable classes, it is the one module list whose length follows the number of
    layers in the configuration.

    Args:
        model: Encoder of any family, with or without a head.

    Raises:
        ValueError: If the model has a decoder, or there is no such list, or more than one.
    """
    if is_supported_family(model.config):
        return "encoder.layers" if model.base_model is model else f"{model.base_model_prefix}.encoder.layers"
    kind = type(model).__name__
    if any(name.rpartition(".")[2] == "decoder" for name, _ in model.named_modules()):
        raise ValueError(
            f"{kind} has a decoder, which reads the last layer of its encoder. Give the encoder alone: "
            "`model.get_encoder()`, or a class without a decoder, such as WhisperForAudioClassification."
        )
    check_layer_count(model.config)
    config = copy.deepcopy(model.config)
    setattr(config, LAYER_COUNT, config.num_hidden_layers + 1)
    with torch.device("meta"):
        longer = _list_lengths(type(model)(config))
    found = [name for name, length in _list_lengths(model).items() if longer.get(name, length) != length]
    if len(found) != 1:
        raise ValueError(
            f"{kind} has {len(found)} lists of modules as long as `{LAYER_COUNT}` says "
            f"({first_names(found) or 'none'}); truncation needs one. Give a model with one stack of transformer layers."
        )
    return found[0]


def _list_lengths(model: nn.Module) -> dict[str, int]:
    return {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}


@dataclass
class LayerStates:
    """Hidden states of one forward pass.

    Attributes:
        states: Input of the first layer and output of each layer, each of shape (batch, frames, hidden size).
        final_norm: Norm that the model applies to the output of the last layer; `None` if there is none.
    """

    states: list[torch.Tensor]
    final_norm: nn.Module | None = None


def run_layers(model: PreTrainedModel, name: str, inputs: Mapping[str, torch.Tensor]) -> LayerStates:
    """Runs a model in evaluation mode and records the hidden states at its transformer layers.

    Unlike the `hidden_states` of transformers, of which some models put the last one behind the final norm, the states of
    a model and of its truncated copy are at the same places.

    Args:
        model: Encoder of any family, with or without a head, which is not run.
        name: Name of its list of layers, see `layers_name`.
        inputs: Inputs of the model, as its feature extractor returns them; moved to the model's device and dtype.

    Raises:
        ValueError: If the model does not run its layers one after the other, each of them once.
    """
    layers = list(model.get_submodule(name).children())
    base: Any = model.base_model
    record, order = LayerStates([]), list[nn.Module]()

    def record_input(layer: nn.Module, arguments: tuple, options: dict[str, Any]) -> None:
        record.states.append(arguments[0] if arguments else options["hidden_states"])

    def record_output(layer: nn.Module, arguments: tuple, output: Any) -> None:
        record.states.append(output if isinstance(output, torch.Tensor) else output[0])
        order.append(layer)

    def record_norm(module: nn.Module, arguments: tuple, output: Any) -> None:
        if len(record.states) == len(layers) + 1 and arguments[0] is record.states[-1]:
            record.final_norm = module

    hooks = [layers[0].register_forward_pre_hook(record_input, with_kwargs=True)]
    hooks += [layer.register_forward_hook(record_output) for layer in layers]
    hooks += [module.register_forward_hook(record_norm) for module in _norms_around(model, name)]
    try:
        with evaluation_mode([base]):
            base(**{name: _as_input(value, base) for name, value in inputs.items()})
    finally:
        for hook in hooks:
            hook.remove()
    if order != layers or len({state.shape for state in record.states}) != 1:
        raise ValueError(
            f"{type(model).__name__} does not run its {len(layers)} layers one after the other on states of one shape, so "
            "that its first layers alone would not compute the same. It cannot be truncated."
        )
    return record


def _norms_around(model: nn.Module, name: str) -> list[nn.Module]:
    """Returns the norms beside a module or beside one of the modules that it is part of."""
    path = name.split(".")
    around = [model.get_submodule(".".join(path[:depth])) for depth in range(len(path))]
    return [child for module in around for child in module.children() if "norm" in type(child).__name__.lower()]


def _as_input(value: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    return value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
