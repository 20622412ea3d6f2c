"""Plan of the trainings of a pruning run, which is shown before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.streaming import SpeechStream
from ..runtime.training_plan import Audio, Stage, TrainingPlan
from .arguments import PruningTrainingArguments
from .stages import GATE_STAGE_NAME, final_stage_name
from .targets import Target, target_text
from .training_data import TrainingData


def plan_stages(
    targets: Sequence[Target],
    args: PruningTrainingArguments,
    data: TrainingData,
    output_dir: Path,
    first_stage: Stage,
) -> TrainingPlan:
    """Returns the plan of a run with one stage for all targets, and then one for each.

    Args:
        targets: Targets of the run.
        args: Training arguments.
        data: Training and held-out clips.
        output_dir: Folder of the result.
        first_stage: Stage of the pruning method.
    """
    stages = {GATE_STAGE_NAME: first_stage}
    if args.num_final_steps > 0:
        for target in targets:
            name = "train the pruned model" + (f" at a target of {target_text(target)}" if len(targets) > 1 else "")
            stages[final_stage_name(target)] = Stage(name, args.num_final_steps)
    clips = data.train_clips
    audio = Audio(None if isinstance(clips, SpeechStream) else clips["seconds"][:], len(data.held_out_clips))
    return TrainingPlan(stages, args, audio, str(output_dir))
