"""Options of `hf-prunable tradeoff`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..modeling.size import MAC_SECONDS
from ..modeling.units import DEFAULT_UNITS
from ..pruning.arguments import ONE_SHOT, PruningArguments, PruningTrainingArguments
from ..pruning.objective_arguments import ObjectiveArguments
from ..runtime.options import OptionTable


DEFAULT_SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass
class TradeoffArguments:
    """Options for the checkpoint, the sizes, and how they are measured.

    Raises:
        ValueError: If a size is out of range.
    """

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint, stock or pruned before."})
    output_dir: str = field(metadata={"help": "Folder for table and picture; it must be new or empty."})
    teacher_name_or_path: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the teacher; by default the checkpoint itself."}
    )
    sparsities: list[float] = field(
        default_factory=lambda: list(DEFAULT_SPARSITIES),
        metadata={"help": "Fractions of the dense encoder to remove; those out of reach are left out."},
    )
    macs: bool = field(default=False, metadata={"help": "Count multiply-accumulates instead of parameters."})
    mac_seconds: float = field(
        default=MAC_SECONDS, metadata={"help": "Seconds of audio that multiply-accumulates are counted for."}
    )
    prune_units: list[str] = field(
        default_factory=lambda: list(DEFAULT_UNITS), metadata={"help": "Kinds of units to prune: qk, vo, int, conv."}
    )
    stock_shape: bool = field(
        default=False, metadata={"help": "Measure shapes that a stock class can express: one feed-forward width."}
    )
    crop_seconds: float = field(default=5.0, metadata={"help": "Length of held-out crops in seconds."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Held-out clips per batch."})
    dataloader_num_workers: int = field(default=0, metadata={"help": "Number of processes that read held-out audio."})
    use_cpu: bool = field(default=False, metadata={"help": "Compute on the CPU even if there is a GPU."})
    seed: int = field(default=42, metadata={"help": "Random seed of held-out clips and crops."})
    disable_tqdm: bool = field(default=False, metadata={"help": "Show no progress bars."})
    override: bool = field(
        default=False, metadata={"help": "Continue an interrupted run although its settings have changed."}
    )

    def __post_init__(self):
        # As `TrainingArguments` does.
        self.output_dir = os.path.expanduser(self.output_dir)
        if isinstance(self.sparsities, int | float):
            self.sparsities = [self.sparsities]
        self.sparsities = sorted(set(self.sparsities))
        wrong = [sparsity for sparsity in self.sparsities if not 0 < sparsity < 1]
        if wrong or not self.sparsities:
            raise ValueError(
                f"`sparsities` must lie between 0 and 1, but are {wrong}. Each is the part of the dense encoder to remove: "
                "0.72 leaves 28 %."
            )

    def pruning(self, sparsities: Sequence[float]) -> PruningArguments:
        """Returns the options of the pruning.

        Args:
            sparsities: Fractions to remove that are within reach.
        """
        return PruningArguments(
            self.model_name_or_path,
            method=ONE_SHOT,
            teacher_name_or_path=self.teacher_name_or_path,
            target_sparsity=None if self.macs else list(sparsities),
            target_macs=list(sparsities) if self.macs else None,
            mac_seconds=self.mac_seconds,
            prune_units=self.prune_units,
            stock_shape=self.stock_shape,
        )

    def objective(self) -> ObjectiveArguments:
        """Returns the options of the loss on held-out audio."""
        return ObjectiveArguments(crop_seconds=self.crop_seconds)

    def training(self, folder: Path) -> PruningTrainingArguments:
        """Returns arguments without training.

        Args:
            folder: Working folder of the run.
        """
        return PruningTrainingArguments(
            str(folder),
            final_steps=0,
            per_device_eval_batch_size=self.per_device_eval_batch_size,
            dataloader_num_workers=self.dataloader_num_workers,
            use_cpu=self.use_cpu,
            seed=self.seed,
            disable_tqdm=self.disable_tqdm,
            report_to="none",
        )


# Titles of the groups and names of their options.
GROUPS = {
    "what to measure": "model_name_or_path teacher_name_or_path sparsities macs mac_seconds prune_units stock_shape",
    "data": (
        "dataset_name dataset_config_name dataset_split streaming min_seconds held_out_fraction held_out_clips "
        "crop_seconds dataloader_num_workers"
    ),
    "one-shot pruning": "calibration_clips calibration_seconds rounds",
    "computation": "per_device_eval_batch_size use_cpu seed disable_tqdm",
    "output": "output_dir override",
}
RARE_GROUPS = {
    "one-shot pruning, seldom needed": (
        "ridge curve_clips price_clips price_fraction reconstruction_steps reconstruction_frames reconstruction_rate "
        "calibration_batch_size allow_few_frames"
    ),
}
NO_TARGET = "`hf-prunable prune --method one_shot` makes the model of a target."
TRADEOFF_TABLE = OptionTable(
    groups={title: names.split() for title, names in GROUPS.items()},
    refused={"target_loss": NO_TARGET, "target_similarity": NO_TARGET, "compare_ragged": NO_TARGET},
    rare_groups={title: names.split() for title, names in RARE_GROUPS.items()},
)
