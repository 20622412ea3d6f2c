"""Files that the stages of a pruning run leave in its folder, from which an interrupted run continues."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

from ..runtime.files import DamagedFileError, read_tensors, save_tensors_atomically
from .student import Student
from .trainer import LOSS_NAMES, PruningTrainer


# Losses by which the log entries of training steps and of evaluations are known.
LOGGED_IN_HISTORY = {*LOSS_NAMES, "eval_loss"}


def save_student(trainer: PruningTrainer, path: Path, stage: int) -> None:
    """Writes weights, projections and multipliers of a training, with its log as metadata.

    Args:
        trainer: Trainer at the present step. All processes must call this, because the weights may be sharded; the first
            process writes.
        path: Output file, in the safetensors format.
        stage: Number of the stage in the history: 1 with gates, 2 after compaction.
    """
    tensors = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    history = [{"stage": stage, **entry} for entry in trainer.state.log_history if LOGGED_IN_HISTORY & entry.keys()]
    if trainer.is_world_process_zero():
        save_tensors_atomically(path, tensors, {"history": json.dumps(history)})
    trainer.accelerator.wait_for_everyone()


def load_student_after(path: Path, student: Student) -> Student:
    """Returns the student after a stage.

    Args:
        path: File that `save_student` wrote in this stage.
        student: Student before the stage; it is not changed.

    Raises:
        DamagedFileError: If the file is not as it was written.
    """
    tensors, metadata = read_tensors(path)
    try:
        history = json.loads(metadata["history"])
    except (KeyError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: its header holds no history ({error!r})") from error
    weights, projections = (
        {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
        for part in ("student.", "distillation.")
    )
    model = copy.deepcopy(student.model)
    model.load_state_dict(weights)
    return replace(student, model=model, projections=projections, history=[*student.history, *history])
