"""Trackers of curves, such as TensorBoard: one run for each stage, in one place that stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from .run_folder import RUNS, WORKING_SUFFIX


class _EndOfRun(TrainerCallback):
    """Ends a run of wandb with its stage; otherwise the next stage would go on in it, with steps from 0."""

    def on_train_end(self, args, state, control, **kwargs):
        if "wandb" in args.report_to and state.is_world_process_zero:
            import wandb  # type: ignore[import-not-found]

            wandb.finish()


def check_trackers(names: str | Sequence[str] | None) -> None:
    """Checks that trackers exist and are installed, before anything is read.

    Args:
        names: Names of trackers, as `TrainingArguments.report_to` holds them.

    Raises:
        ValueError: If one is unknown or not installed.
    """
    available = get_available_reporting_integrations()
    for name in [names] if isinstance(names, str) else names or ():
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(
                f"`report_to` is {name!r}, which is no tracker of transformers. There are "
                f"{', '.join(sorted(INTEGRATION_TO_CALLBACK))}, and 'none'."
            )
        if name not in available:
            raise ValueError(
                f"`report_to` is {name!r}, and its package is not installed. Install it, such as by `pip install {name}`, or take "
                f"one of {', '.join(sorted(available)) or 'none'}."
            )


def track_stage(trainer: Trainer, folder: Path, stage: str) -> None:
    """Names the runs of a trainer's trackers, and lets TensorBoard write into the folder of the whole run.

    Args:
        trainer: Trainer of one stage, before it trains.
        folder: Working folder of the whole run, whose name the runs have too.
        stage: Name of the stage.
    """
    trainer.args.run_name = f"{folder.name.removesuffix(WORKING_SUFFIX)}-{stage}"
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            # A folder that the environment names is kept, see TENSORBOARD_LOGGING_DIR.
            callback.logging_dir = str(Path(callback.logging_dir or folder / RUNS) / stage)
    trainer.add_callback(_EndOfRun())
