"""The shapes that benchmarks measure: what gates kept of a dense model, one JSON file each."""

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
    """A shape of a dense model, and where it comes from.

    Attributes:
        name: Of the shape, and of its file.
        model: The dense model's name.
        config: Fields of the dense model's stock configuration, `model_type` among them; all others are defaults.
        source: How the shape came about, in words.
        units: The kinds of units that had gates.
        measure: What the target counts: "parameters" or "macs", those of a clip of 10 s.
        target: The part of the dense model that was to go.
        shape: What is left.
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
        """Of the dense model, as a stock class takes it."""
        return AutoConfig.for_model(**self.config)

    def prunable_config(self, dense: bool = False) -> PreTrainedConfig:
        """Of the model with this shape, or of the dense one, as a prunable class takes it."""
        stock = self.stock_config()
        config = prunable_class(stock).config_class.from_stock(stock)
        config.pruned_shape = None if dense else self.shape.to_dict()
        return config

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes NAME.json, with a line for each field and for each layer.

        Returns:
            The file.
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
        """Reads what `save` wrote.

        Raises:
            ValueError: If the file is no such shape, or the shape does not fit its model.
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
    """Shapes of one dense model.

    Args:
        model: The dense model's name.
        names: Of shapes, with or without the model's name at the end; `None` for all.
        folder: With the files.

    Raises:
        ValueError: If there is no such model, or no such shape of it.
    """
    shapes = [ShapeFile.load(path) for path in sorted(Path(folder).glob("*.json"))]
    of_model = {shape.name: shape for shape in shapes if shape.model == model}
    if not of_model:
        models = ", ".join(sorted({shape.model for shape in shapes}))
        raise ValueError(f"There is no shape of the model {model!r} in {os.fspath(folder)}; choose from {models}.")
    wanted = of_model if names is None else [name if name in of_model else f"{name}-{model}" for name in names]
    if unknown := [name for name in wanted if name not in of_model]:
        raise ValueError(f"There is no shape {', '.join(unknown)} of {model}; choose from {', '.join(of_model)}.")
    return [of_model[name] for name in wanted]


@dataclass(kw_only=True)
class ChosenShapes:
    """Options of a benchmark: which shapes it measures."""

    model: str = field(default="wavlm-base", metadata={"help": "Dense model: see benchmarks/shapes."})
    shapes: list[str] | None = field(
        default=None,
        metadata={"help": "Its shapes, such as paper-28 (with or without the model's name); by default all."},
    )
    shapes_dir: str = field(default=str(SHAPES_FOLDER), metadata={"help": "Folder of the shapes."})

    def load_shapes(self) -> list[ShapeFile]:
        """The shapes.

        Raises:
            ValueError: If there is no such model, or no such shape of it.
        """
        return load_shapes(self.model, self.shapes, self.shapes_dir)
