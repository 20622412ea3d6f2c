"""Trackers of curves, such as TensorBoard: one run for each stage, in one place that stays."""

from __future__ import annotations

from pathlib import Path

from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback

from .run_folder import RUNS


class _EndOfRun(TrainerCallback):
    """Ends a run of wandb with its stage; otherwise the next stage would go on in it, with steps from 0."""

    def on_train_end(self, args, state, control, **kwargs):
        if "wandb" in args.report_to and state.is_world_process_zero:
            import wandb

            wandb.finish()


def track_stage(trainer: Trainer, folder: Path, run: str, stage: str) -> None:
    """Names the runs of a trainer's trackers, and lets TensorBoard write into the folder of the whole run.

    Args:
        trainer: Trainer of one stage, before it trains.
        folder: Folder of the whole run.
        run: Name of the whole run.
        stage: Name of the stage.
    """
    trainer.args.run_name = f"{run}-{stage}"
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            # A folder that the environment names is kept, see TENSORBOARD_LOGGING_DIR.
            callback.logging_dir = str(Path(callback.logging_dir or folder / RUNS) / stage)
    trainer.add_callback(_EndOfRun())
