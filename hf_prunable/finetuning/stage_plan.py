"""Plan of the trainings of a fine-tuning run, which is shown before they begin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from datasets import DatasetDict

from ..runtime.training_plan import Audio, Stage, TrainingPlan
from .classifier import FinetuningArguments


def stage_name(variant: str, seed: int) -> str:
    """Returns the name of a training, which is also that of its folder.

    Args:
        variant: Name of the model's variant.
        seed: Random seed of the training.
    """
    return f"{variant}_seed_{seed}"


def plan_stages(
    depths: Mapping[str, int], seeds: Sequence[int], args: FinetuningArguments, splits: DatasetDict, output_dir: str
) -> TrainingPlan:
    """Returns the plan of a run that trains each variant with each seed.

    Args:
        depths: Number of layers of each variant, by its name.
        seeds: Random seeds.
        args: Arguments of the Trainer.
        splits: Clips of the splits "train", "validation" and "test".
        output_dir: Folder of the result.
    """
    seconds = splits["train"]["seconds"][:]
    stages = {
        stage_name(variant, seed): Stage(
            f"fine-tune {num_layers} layers with seed {seed}", num_steps(args, len(seconds))
        )
        for seed in seeds
        for variant, num_layers in depths.items()
    }
    num_held_out = len(splits["validation"]) + len(splits["test"])
    return TrainingPlan(stages, args, Audio(seconds, num_held_out), output_dir)


def num_steps(args: FinetuningArguments, num_clips: int) -> int:
    """Returns the number of optimizer steps of a training.

    Args:
        args: Arguments of the Trainer.
        num_clips: Number of training clips.
    """
    if args.max_steps > 0:
        return args.max_steps
    num_batches = math.ceil(num_clips / (args.train_batch_size * args.world_size))
    return math.ceil(args.num_train_epochs * math.ceil(num_batches / args.gradient_accumulation_steps))
