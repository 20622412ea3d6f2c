"""Trackers of curves, such as TensorBoard: one run for each stage, in one place that stays."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from .files import write_text_atomically
from .run_folder import RUNS, WORKING_SUFFIX


# File in a working folder with a random id: a run that goes on has the same one, another run of that name does not.
RUN_ID_FILE = "tracker_run_id"


class _PurgeAfterResume(TrainerCallback):
    """Hides the points that a killed run has drawn after its last checkpoint, which are drawn again.

    Args:
        tensorboard: Callback that writes for TensorBoard, and is called before this one.
    """

    def __init__(self, tensorboard: TensorBoardCallback):
        self.tensorboard = tensorboard

    def on_train_begin(self, args, state, control, **kwargs):
        writer = self.tensorboard.tb_writer
        if writer is not None and state.global_step:
            writer.close()
            writer = type(writer)(self.tensorboard.logging_dir, purge_step=state.global_step + 1)
            self.tensorboard.tb_writer = writer


def check_trackers(names: str | Sequence[str] | None) -> None:
    """Checks that trackers exist and are installed, before anything is read.

    Args:
        names: Names of trackers, as `TrainingArguments.report_to` holds them.

    Raises:
        ValueError: If one is unknown or not installed.
    """
    available = get_available_reporting_integrations()
    for name in _listed(names):
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"`report_to` is {name!r}, which is no tracker of transformers. There are "
                f"{', '.join(sorted(INTEGRATION_TO_CALLBACK))}, and 'none'."
            )
        if name not in available:
            raise ValueError(
                f"`report_to` is {name!r}, and its package is not installed. Install it, such as by `pip install {name}`, or take "
                f"{' or '.join([*sorted(available), 'none'])}."
            )


@contextmanager
def tracked_stage(trainer: Trainer, folder: Path, stage: str) -> Iterator[None]:
    """Gives the training inside a block a run of its own in each tracker.

    TensorBoard and wandb write their files into the folder of the whole run, unless TENSORBOARD_LOGGING_DIR or WANDB_DIR
    name another. A stage that goes on after an interruption goes on in its run. After the block, the trainer reports to no
    tracker.

    Args:
        trainer: Trainer of one stage, before it trains.
        folder: Working folder of the whole run, whose name the runs have too if there is no `run_name`.
        stage: Name of the stage.
    """
    args, names = trainer.args, _listed(trainer.args.report_to)
    wandb_run = None
    if names and trainer.is_world_process_zero():
        run_id = f"{stage}-{_run_id(folder)}"
        args.run_name = f"{args.run_name or folder.name.removesuffix(WORKING_SUFFIX)}-{run_id}"
        if "wandb" in names:
            wandb_run = _begin_wandb_run(args.run_name, run_id, folder / RUNS)
    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, TensorBoardCallback):
            callback.logging_dir = str(Path(callback.logging_dir or folder / RUNS) / stage)
            trainer.add_callback(_PurgeAfterResume(callback))
    yield
    if wandb_run is not None:
        # The next stage would go on in this run, with steps from 0.
        wandb_run.finish()
    for name in names:
        trainer.remove_callback(INTEGRATION_TO_CALLBACK[name])


def _listed(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _run_id(folder: Path) -> str:
    """Returns the random id of the run in a working folder; writes it at the first call."""
    path = folder / RUN_ID_FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, secrets.token_hex(3))
    return path.read_text(encoding="utf-8")


def _begin_wandb_run(name: str, run_id: str, folder: Path) -> Any:
    """Begins a run of wandb or goes on with it, and returns it; `None` if the caller has begun one already.

    Args:
        name: Name of the run.
        run_id: Id by which wandb knows the run.
        folder: Folder of its files, if WANDB_DIR names none.
    """
    import wandb  # type: ignore[import-not-found]

    if wandb.run is not None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        # As the Trainer does, which would write to the working directory.
        project=os.environ.get("WANDB_PROJECT", "huggingface"),
        name=name,
        id=run_id,
        resume="allow",
        dir=os.environ.get("WANDB_DIR") or str(folder),
    )
