"""Shape files of pruned checkpoints, so that benchmarks can compare them.

    python -m benchmarks student_shapes --dense wavlm-mini --students ragged-30 stock-30 --output_dir shapes
    python -m benchmarks inference --model wavlm-mini --shapes_dir shapes --output_dir inference

No weights are read: the configuration holds the shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoConfig, HfArgumentParser
from transformers.utils import logging

from benchmarks.shape_files import ShapeFile
from hf_prunable.modeling.auto import prunable_class
from hf_prunable.modeling.configuration import PrunableConfigMixin
from hf_prunable.modeling.size import PARAMETERS, UnitCounts


logger = logging.get_logger(__name__)

# Fields of a configuration that say nothing about the architecture.
OTHER_FIELDS = ("architectures", "dtype", "transformers_version", "_name_or_path", "auto_map")


@dataclass
class StudentShapeArguments:
    """Checkpoints to describe."""

    dense: str = field(metadata={"help": "Folder or Hub id of the dense checkpoint; its last part names the model."})
    students: list[str] = field(
        metadata={"help": "Folders of checkpoints that were pruned from it; they name the shapes."}
    )
    output_dir: str = field(metadata={"help": "Folder for the shape files."})


def student_shape(student: str, dense: str) -> ShapeFile:
    """Describes the shape of a pruned checkpoint.

    Args:
        student: Folder of the pruned checkpoint, ragged or stock.
        dense: Folder or Hub id of the dense checkpoint.

    Raises:
        ValueError: If the student cannot be a pruned form of the dense model.
    """
    stock, shape = AutoConfig.from_pretrained(dense), _prunable_config(student).shape
    config = _prunable_config(dense)
    model = Path(dense).name
    full = UnitCounts.of(config.shape)
    counts = UnitCounts.of(shape)
    fields = {name: value for name, value in stock.to_diff_dict().items() if name not in OTHER_FIELDS}
    return ShapeFile(
        name=f"{Path(student).name}-{model}",
        model=model,
        config={name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()},
        source=f"Shape of the checkpoint {Path(student).name}, pruned from {model}.",
        units=_pruned_units(counts, full),
        measure=PARAMETERS.name,
        target=round(PARAMETERS.sparsity(config, counts), 4),
        shape=shape,
    )


def _prunable_config(checkpoint: str) -> PrunableConfigMixin:
    stock = AutoConfig.from_pretrained(checkpoint)
    return prunable_class(stock).config_class.from_stock(stock)


def _pruned_units(counts: UnitCounts, full: UnitCounts) -> list[str]:
    """Returns the kinds of units of which there are fewer than in the dense model."""
    names = {"qk": "query_key", "vo": "value_output", "int": "intermediate"}
    units = [
        unit
        for unit, name in names.items()
        if any(
            getattr(layer, name) < getattr(dense, name)
            for layer, dense in zip(counts.layers, full.layers, strict=True)
        )
    ]
    return [*units, *(["conv"] if sum(counts.conv_channels) < sum(full.conv_channels) else [])]


def main() -> None:
    (options,) = HfArgumentParser(StudentShapeArguments).parse_args_into_dataclasses()
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for student in options.students:
        path = student_shape(student, options.dense).save(folder)
        logger.warning(f"Wrote {path}.")


if __name__ == "__main__":
    main()
