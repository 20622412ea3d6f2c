"""The models that are timed against each other: stock transformers, the dense prunable model, and shapes of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

# Importing the package registers pruned models with the Auto classes.
from benchmarks.shape_files import ChosenShapes, ShapeFile
from hf_prunable.modeling.size import UnitCounts, count_macs, count_parameters


STOCK, DENSE, PREPARED = "stock", "dense", "prepared"
WEIGHT_SEED = 0
DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class ModelArguments(ChosenShapes):
    """Which models take part."""

    output_dir: str = field(metadata={"help": "Folder for the result."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda or another device of torch."})
    dtype: str = field(default="float32", metadata={"help": f"Of weights and audio: {', '.join(DTYPES)}."})

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` is {self.dtype!r}; choose from {', '.join(DTYPES)}.")


@dataclass(frozen=True)
class ComparedModel:
    """A model with random weights: what it takes does not depend on their values.

    Attributes:
        name: Of the row.
        config: As a prunable class takes it, also of the stock model.
        is_stock: Whether the model is of the stock class.
        is_prepared: Whether it is prepared for inference.
    """

    name: str
    config: PreTrainedConfig
    is_stock: bool = False
    is_prepared: bool = False

    def build(self, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
        """The model, the same each time, in evaluation mode.

        Args:
            dtype: Of the weights, by torch's name for it.
            device: To put it on.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(WEIGHT_SEED)
            model = AutoModel.from_config(self.config.to_stock() if self.is_stock else copy.deepcopy(self.config))
        model = model.to(device, getattr(torch, dtype)).eval()
        return model.prepare_for_inference_() if self.is_prepared else model

    @property
    def num_parameters(self) -> int:
        """Parameters of the encoder."""
        return count_parameters(self.config, UnitCounts.of(self.config.shape))

    def macs(self, seconds: float, batch_size: int = 1) -> int:
        """Multiply-accumulates of one forward pass over clips of this length."""
        return batch_size * count_macs(self.config, UnitCounts.of(self.config.shape), seconds)


def compared_models(shapes: Sequence[ShapeFile], prepared: bool = True) -> list[ComparedModel]:
    """The stock model first, then the dense prunable one and each shape, as loaded and prepared for inference.

    Args:
        shapes: Of one dense model.
        prepared: Whether those that are prepared take part.
    """
    dense = shapes[0].prunable_config(dense=True)
    models = [ComparedModel(STOCK, dense, is_stock=True)]
    configs = {DENSE: dense} | {shape.name: shape.prunable_config() for shape in shapes}
    for name, config in configs.items():
        models.append(ComparedModel(name, config))
        if prepared:
            models.append(ComparedModel(f"{name} {PREPARED}", config, is_prepared=True))
    return models
