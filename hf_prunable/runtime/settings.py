"""The settings that a result depends on: reading them from the Trainer's arguments, recording and comparing them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.utils import logging

from .files import write_text_atomically


logger = logging.get_logger(__name__)

SETTINGS_FILE = "settings.json"

# Arguments that change the result of any training. The Trainer's other arguments concern devices, logs and files, or
# change the result of some trainings only, which name them.
TRAINING_SETTINGS = (
    "max_steps",
    "learning_rate",
    "warmup_steps",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "fp16",
)


def result_settings(arguments: TrainingArguments, *further_names: str) -> dict[str, Any]:
    """Reads the arguments that a training's result depends on.

    Args:
        arguments: Arguments of the Trainer, or of a subclass.
        *further_names: Names of arguments beside `TRAINING_SETTINGS`.

    Returns:
        The arguments by name, as values that JSON can hold.
    """
    values = arguments.to_dict()
    return {name: values[name] for name in (*TRAINING_SETTINGS, *further_names)}


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compares two sets of settings.

    Args:
        before: Settings of an earlier run, by name.
        now: Settings of this run, by name. A name that only one of the two has counts as `None` in the other.

    Returns:
        One text for each setting that differs, in the order of their names: "`seed` was 0 and is 1". Tuples and lists
        of equal items do not differ, because JSON has lists only.
    """
    before, now = (json.loads(json.dumps(dict(settings))) for settings in (before, now))
    return [
        f"`{name}` was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def remember_settings(folder: Path, settings: Mapping[str, Any], override: bool = False) -> None:
    """Records the settings of a run, or compares them with those of the interrupted run that it continues.

    Args:
        folder: Working folder of the run; it is created if it does not exist.
        settings: Settings by name, with values that JSON can hold.
        override: Whether to continue with these settings if they differ from the recorded ones.

    Raises:
        ValueError: If the settings differ from the recorded ones and `override` is false. The message names each
            difference.
    """
    path = folder / SETTINGS_FILE
    if path.exists():
        differences = describe_differences(json.loads(path.read_text(encoding="utf-8")), settings)
        if differences and not override:
            raise ValueError(
                f"{str(folder)!r} holds an interrupted run of other settings: {'; '.join(differences)}. Go on with the "
                "settings of that run, give `--override` to go on with the new ones, or delete the folder to start anew."
            )
        if not differences:
            return
        logger.warning(f"Going on with changed settings: {'; '.join(differences)}.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(dict(settings), indent=2) + "\n")
