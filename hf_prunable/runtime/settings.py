"""What a result depends on: settings from the Trainer's arguments and facts about what is read, recorded and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.utils import logging

from .digests import PREFIX
from .files import write_text_atomically
from .messages import first_names
from .run_folder import LOCK_FILE


logger = logging.get_logger(__name__)

SETTINGS_FILE = "settings.json"
# Name of what a run reads, in the file of settings.
IDENTITY = "identity"

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


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compares what two runs read, in the words of its facts; digests are only compared, not shown.

    Args:
        before: Facts of an earlier run by thing, such as {"training clips": {"clips": 24, "content": "sha256:..."}}. A
            thing may be `None`.
        now: Facts of this run.

    Returns:
        One text for each thing that differs, such as "training clips: 24 clips before, 23 now" or "teacher: other
        weights". Digests are left out where a fact differs that can be shown.
    """
    texts = []
    for thing in sorted(before.keys() | now.keys()):
        old, new = _facts(before.get(thing)), _facts(now.get(thing))
        if old == new:
            continue
        if not old or not new:
            texts.append(f"{thing}: {'none' if not old else 'some'} before, {'none' if not new else 'some'} now")
            continue
        changed = [fact for fact in sorted(old.keys() | new.keys()) if old.get(fact) != new.get(fact)]
        shown = [fact for fact in changed if not str(new.get(fact, old.get(fact))).startswith(PREFIX)]
        parts = [_before_and_now(fact, old.get(fact), new.get(fact)) for fact in shown] or [
            f"other {fact}" for fact in changed
        ]
        texts.append(f"{thing}: {', '.join(parts)}")
    return texts


def _facts(value: Any) -> Mapping[str, Any]:
    """Returns the facts about a thing; none for what a damaged file may hold in their place."""
    return value if isinstance(value, Mapping) else {}


def _before_and_now(fact: str, before: Any, now: Any) -> str:
    if isinstance(before, int | float) and isinstance(now, int | float):
        return f"{before:,} {fact} before, {now:,} now"
    return f"{fact} {before} before, {now} now"


def remember_settings(
    folder: Path, settings: Mapping[str, Any], override: bool = False, identity: Mapping[str, Any] | None = None
) -> None:
    """Records the settings of a run, or compares them with those of the interrupted run that it continues.

    Args:
        folder: Working folder of the run; it is created if it does not exist.
        settings: Settings by name, with values that JSON can hold.
        override: Whether to continue with these settings if they differ from the recorded ones.
        identity: Facts about what the run reads, see `describe_changes`; `None` to compare settings alone.

    Raises:
        ValueError: If the folder holds files of a run that has or may have had other settings or read something else, and
            `override` is false. The message names each difference.
    """
    present = dict(settings) if identity is None else {**settings, IDENTITY: dict(identity)}
    path = folder / SETTINGS_FILE
    reason = _why_another_run(path, json.loads(json.dumps(present)))
    if reason is not None:
        if not override:
            raise ValueError(
                f"{str(folder)!r} holds an interrupted run {reason}. Go on with settings, weights, clips and versions of that "
                "run, give `--override` to go on with the new ones, or delete the folder to start anew."
            )
        logger.warning(f"Going on with an interrupted run {reason}.")
    if reason is not None or not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(present, indent=2) + "\n")


def _why_another_run(path: Path, now: dict[str, Any]) -> str | None:
    """Says why the run that has left a file of settings is not this one; `None` if it is, or if there is none."""
    if not path.exists():
        others = [entry.name for entry in path.parent.glob("[!.]*") if entry.name != LOCK_FILE]
        return f"without {SETTINGS_FILE}, but with {first_names(sorted(others))}" if others else None
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"whose {SETTINGS_FILE} is empty or damaged ({error})"
    if not isinstance(before, dict):
        return f"whose {SETTINGS_FILE} holds no settings"
    if IDENTITY in now and not isinstance(before.get(IDENTITY), dict):
        return "of an earlier version of hf_prunable, which did not record weights, clips and versions"
    before_identity, now_identity = before.pop(IDENTITY, {}), now.pop(IDENTITY, {})
    differences = describe_differences(before, now)
    changes = describe_changes(before_identity, now_identity)
    found = [f"of other settings: {'; '.join(differences)}"] * bool(differences)
    found += [f"that read something else: {'; '.join(changes)}"] * bool(changes)
    return ", and ".join(found) or None
