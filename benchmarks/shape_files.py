"""Shapes of pruned models that benchmarks measure, one JSON file each."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from hf_prunable.modeling.auto import prunable_class
from hf_prunable.modeling.shape import PrunedShape
from hf_prunable.modeling.size import Measure
from hf_prunable.runtime.files import write_text_atomically


SHAPES_FOLDER = Path(__file__).with_name("shapes")


@dataclass
class ShapeFile:
    """A pruned shape of a dense model, and how it was made.

    Attributes:
        name: Name of the shape, and of its file without extension.
        model: Name of the dense model.
        config: Fields of the dense model's stock configuration, including `model_type`; others have their defaults.
        source: Description of how the shape was made.
        units: Kinds of units that had gates.
        measure: What the target counts: "parameters", or "macs" of a 10 s clip.
        target: Fraction of the dense model to remove, between 0 and 1.
        shape: Shape of the pruned model.

    Raises:
        ValueError: If `measure` is unknown, or the shape does not fit the dense model.
    """

    name: str
    model: str
    config: dict[str, Any]
    source: str
    units: list[str]
    measure: str
    target: float
    shape: PrunedShape

    def __post_init__(self):
        Measure(self.measure)
        self.shape.validate(self.prunable_config())

    def stock_config(self) -> PreTrainedConfig:
        """Builds the stock configuration of the dense model."""
        return AutoConfig.for_model(**self.config)

    def prunable_config(self, dense: bool = False) -> PreTrainedConfig:
        """Builds the prunable configuration.

        Args:
            dense: Whether to describe the dense model instead of the pruned one.
        """
        stock = self.stock_config()
        config = prunable_class(stock).config_class.from_stock(stock)
        config.pruned_shape = None if dense else self.shape.to_dict()
        return config

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes NAME.json with one line for each field and each layer.

        Args:
            folder: Output folder.

        Returns:
            Path of the file.
        """
        shape = self.shape.to_dict()
        layers = ",\n".join(f"  {json.dumps(layer)}" for layer in shape.pop("layers"))
        fields = {name: value for name, value in vars(self).items() if name != "shape"} | shape
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
        path = Path(folder) / f"{self.name}.json"
        write_text_atomically(path, "{\n" + ",\n".join([*lines, f' "layers": [\n{layers}\n ]']) + "\n}\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> ShapeFile:
        """Reads a file that `save` wrote.

        Args:
            path: JSON file.

        Raises:
            ValueError: If the file has missing or unknown fields, or the shape does not fit its model.
        """
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        try:
            shape = {name: values.pop(name) for name in ("format_version", "conv_channels", "layers")}
            return cls(**values, shape=PrunedShape.from_dict(shape))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no shape of a benchmark: {error!r}. Give a file that `experiments.make_shapes` wrote."
            ) from error


def load_shapes(
    model: str, names: list[str] | None = None, folder: str | os.PathLike = SHAPES_FOLDER
) -> list[ShapeFile]:
    """Loads the shapes of one dense model.

    Args:
        model: Name of the dense model.
        names: Names of the shapes, with or without the model's name at the end; `None` for all.
        folder: Folder with the shape files.

    Raises:
        ValueError: If the model or a shape is unknown.
    """
    shape_files = [ShapeFile.load(path) for path in sorted(Path(folder).glob("*.json"))]
    of_model = {shape_file.name: shape_file for shape_file in shape_files if shape_file.model == model}
    if not of_model:
        models = ", ".join(sorted({shape_file.model for shape_file in shape_files}))
        raise ValueError(f"There is no shape of the model {model!r} in {os.fspath(folder)}; choose from {models}.")
    wanted = of_model if names is None else [name if name in of_model else f"{name}-{model}" for name in names]
    if unknown := [name for name in wanted if name not in of_model]:
        raise ValueError(f"There is no shape {', '.join(unknown)} of {model}; choose from {', '.join(of_model)}.")
    return [of_model[name] for name in wanted]


@dataclass(kw_only=True)
class ChosenShapes:
    """Shapes to measure."""

    model: str = field(
        default="wavlm-base", metadata={"help": "Name of the dense model, as in the shape files of `shapes_dir`."}
    )
    shapes: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the pruned shapes, such as paper-28, with or without the model's name; default: all."
        },
    )
    shapes_dir: str = field(default=str(SHAPES_FOLDER), metadata={"help": "Folder with the shape files."})

    def load_shapes(self) -> list[ShapeFile]:
        """Loads the shapes.

        Raises:
            ValueError: If the model or a shape is unknown.
        """
        return load_shapes(self.model, self.shapes, self.shapes_dir)
