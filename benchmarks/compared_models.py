"""Models that are timed against each other: the stock class, the dense prunable class, and pruned shapes."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    """Models to compare, and the device and data type they run on.

    Raises:
        ValueError: If `dtype` is unknown.
    """

    output_dir: str = field(metadata={"help": "Output folder."})
    device: str = field(default="cpu", metadata={"help": "Torch device, such as cpu or cuda."})
    dtype: str = field(default="float32", metadata={"help": f"Data type of weights and audio: {', '.join(DTYPES)}."})

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` is {self.dtype!r}; choose from {', '.join(DTYPES)}.")


@dataclass(frozen=True)
class ComparedModel:
    """A model with random weights. Time and memory do not depend on the values of the weights.

    Attributes:
        name: Row name in the result.
        config: Prunable configuration, also for the stock model.
        is_stock: Whether to build the stock class of transformers.
        is_prepared: Whether to call `prepare_for_inference_()`.
    """

    name: str
    config: PreTrainedConfig
    is_stock: bool = False
    is_prepared: bool = False

    def build(self, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
        """Builds the model in evaluation mode, with the same weights on each call.

        Args:
            dtype: Data type of the weights, by torch's name.
            device: Torch device.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(WEIGHT_SEED)
            model = AutoModel.from_config(self.config.to_stock() if self.is_stock else copy.deepcopy(self.config))
        model = model.to(device, getattr(torch, dtype)).eval()
        return model.prepare_for_inference_() if self.is_prepared else model

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the encoder."""
        return count_parameters(self.config, UnitCounts.of(self.config.shape))

    def macs(self, seconds: float, batch_size: int = 1) -> int:
        """Counts the multiply-accumulates of one forward pass.

        Args:
            seconds: Clip length in seconds.
            batch_size: Number of clips.
        """
        return batch_size * count_macs(self.config, UnitCounts.of(self.config.shape), seconds)


def compared_models(shape_files: Sequence[ShapeFile], prepared: bool = True) -> list[ComparedModel]:
    """Lists the stock model, the dense prunable model and the pruned shapes, in this order.

    As loaded, a shape that a stock class can express is a model of that class, as its checkpoint loads.

    Args:
        shape_files: Shapes of one dense model.
        prepared: Whether each prunable model is followed by the same model prepared for inference.
    """
    dense = shape_files[0].prunable_config(dense=True)
    models = [ComparedModel(STOCK, dense, is_stock=True)]
    configs = {DENSE: dense} | {shape_file.name: shape_file.prunable_config() for shape_file in shape_files}
    for name, config in configs.items():
        loads_as_stock = name != DENSE and config.shape.stock_fields(config) is not None
        models.append(ComparedModel(name, config, is_stock=loads_as_stock))
        if prepared:
            models.append(ComparedModel(f"{name} {PREPARED}", config, is_prepared=True))
    return models


def speedups(name: str, rounds: Sequence[Mapping[str, float]]) -> list[float]:
    """Divides the stock model's time by a model's time, round by round.

    Args:
        name: Name of the model.
        rounds: For each round, the seconds of every model by name.
    """
    return [seconds[STOCK] / seconds[name] for seconds in rounds]


def summarize_times(name: str, rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Summarizes the times of one model.

    Args:
        name: Name of the model.
        rounds: For each round, the seconds of every model by name.

    Returns:
        "median_seconds"; "speedup", the median over the rounds of the ratio of the stock model's time to the model's
        time; "seconds" of each round.
    """
    times = [seconds[name] for seconds in rounds]
    return {
        "median_seconds": statistics.median(times),
        "speedup": statistics.median(speedups(name, rounds)),
        "seconds": times,
    }
