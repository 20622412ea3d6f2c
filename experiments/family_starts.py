"""Models of the other families with the teacher's size, before training: configuration and initial weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, set_seed


# Fields that name the class and the file of a configuration.
OWN_FIELDS = ("model_type", "architectures", "transformers_version", "dtype")
# Fields in which published large models differ from base models, beside their size.
PRE_NORM = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
# Tensors by name.
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """A model of the teacher's size in another family.

    Attributes:
        label: Row name in tables.
        model_type: Family, a model type of transformers.
        start: Initial weights by default, a name in `STARTS`.
        seed: Number added to the random seed, so that no two models draw the same weights or see the same batches.
        fields: Fields of the configuration that differ from the teacher's.
    """

    label: str
    model_type: str
    start: str
    seed: int
    fields: Mapping[str, Any] = field(default_factory=dict)


FAMILIES = {
    "hubert": Family("HuBERT", "hubert", "new_attention", 0),
    "wav2vec2": Family("wav2vec 2.0", "wav2vec2", "new_attention", 100),
    "wav2vec2-prenorm": Family("wav2vec 2.0, pre-norm", "wav2vec2", "moved_norms", 200, PRE_NORM),
}


def copied(weights: Weights, depth: int) -> Weights:
    """Returns the teacher's weights as they are."""
    return weights


def new_attention(weights: Weights, depth: int) -> Weights:
    """Returns the teacher's weights without the four projections of every attention block."""
    return {name: tensor for name, tensor in weights.items() if ".attention." not in name}


def moved_norms(weights: Weights, depth: int) -> Weights:
    """Returns the teacher's weights with each norm named after the block that reads its output, for a pre-norm model.

    The norm after a block of a post-norm model has the name of the norm before that block of a pre-norm model. With the
    names moved by one block, every block and the model's output read a norm with the weights that they had in the teacher.

    Args:
        weights: Weights of a post-norm model by name.
        depth: Number of layers.
    """
    first, final = "encoder.layer_norm", "encoder.layers.{}.final_layer_norm".format
    sources = {"encoder.layers.0.layer_norm": first, first: final(depth - 1)}
    for layer in range(depth):
        sources[final(layer)] = f"encoder.layers.{layer}.layer_norm"
        if layer > 0:
            sources[f"encoder.layers.{layer}.layer_norm"] = final(layer - 1)
    moved = {
        f"{name}.{part}": weights[f"{source}.{part}"]
        for name, source in sources.items()
        for part in ("weight", "bias")
    }
    return weights | moved


def no_weights(weights: Weights, depth: int) -> Weights:
    """Returns no weights, so that all are new."""
    return {}


# Weights that a model starts from, by name: functions from the teacher's weights and its number of layers.
STARTS: dict[str, Callable[[Weights, int], Weights]] = {
    "copied": copied,
    "new_attention": new_attention,
    "moved_norms": moved_norms,
    "new": no_weights,
}


@dataclass(frozen=True)
class Start:
    """A model before training, and where its weights come from.

    Attributes:
        model: Stock base model in float32.
        copied: Names of the parameters and buffers with the teacher's values.
        new: Names of those with initial values of their class.
        left_out: Names of the teacher's that the model does not take over.
    """

    model: PreTrainedModel
    copied: list[str]
    new: list[str]
    left_out: list[str]

    def summary(self) -> dict[str, Any]:
        """Returns numbers of copied and new parameters, and the names."""
        sizes = {name: tensor.numel() for name, tensor in self.model.state_dict().items()}
        return {
            "copied_parameters": sum(sizes[name] for name in self.copied),
            "new_parameters": sum(sizes[name] for name in self.new),
            "copied": self.copied,
            "new": self.new,
            "left_out": self.left_out,
        }


def family_config(family: Family, teacher_config: PreTrainedConfig) -> PreTrainedConfig:
    """Makes the configuration of a family with the teacher's value of every field that the family has.

    Args:
        family: Family and fields that differ.
        teacher_config: Stock configuration of the teacher.
    """
    names = AutoConfig.for_model(family.model_type).to_dict().keys() - set(OWN_FIELDS)
    fields = {name: value for name, value in teacher_config.to_dict().items() if name in names}
    return AutoConfig.for_model(family.model_type, **(fields | family.fields))


def make_start(family: Family, teacher: PreTrainedModel, seed: int, start: str) -> Start:
    """Makes a model of a family with those of the teacher's weights whose name and shape the model has.

    Args:
        family: Family and fields that differ.
        teacher: Stock base model.
        seed: Random seed of the new weights.
        start: Weights that the model starts from, a name in `STARTS`.
    """
    set_seed(seed)
    model = AutoModel.from_config(family_config(family, teacher.config), dtype=torch.float32)
    own, all_weights = model.state_dict(), teacher.state_dict()
    weights = STARTS[start](all_weights, teacher.config.num_hidden_layers)
    fitting = {name: tensor for name, tensor in weights.items() if name in own and tensor.shape == own[name].shape}
    model.load_state_dict(fitting, strict=False)
    return Start(
        model,
        copied=[name for name in own if name in fitting],
        new=[name for name in own if name not in fitting],
        left_out=[name for name in all_weights if name not in fitting],
    )
