"""Labels for pruning with a task's loss: transcripts for CTC, classes for classification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ..runtime.messages import first_names
from .streaming import SpeechStream


# What CTC and cross-entropy leave out of the loss.
IGNORED_LABEL = -100
DEFAULT_COLUMNS = {"ctc": "text", "classification": "label"}
AUTO_CLASSES = {"ctc": "AutoModelForCTC", "classification": "AutoModelForAudioClassification"}


@dataclass
class Task:
    """What a student with a head learns from labels.

    Attributes:
        auto_class: The kind of head, by the name of its Auto class.
        label_column: Of the data set.
        encode: Makes the model's `labels` from the labels of a batch.
        model_options: Of the configuration, for loading the student.
        tokenizer: Of a task with transcripts, to be saved with the model.
    """

    auto_class: str
    label_column: str
    encode: Callable[[Sequence[Any]], torch.Tensor]
    model_options: dict[str, Any] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = None


def load_task(
    kind: str,
    pretrained_model_name_or_path: str | Path,
    clips: Dataset | SpeechStream,
    label_column: str | None = None,
) -> Task:
    """Makes a task of a data set's labels.

    Args:
        kind: "ctc" (transcripts, for which the checkpoint has to have a tokenizer) or "classification".
        pretrained_model_name_or_path: The student's checkpoint.
        clips: The labelled clips.
        label_column: "text" for CTC and "label" for classification where `None`.

    Raises:
        ValueError: If there is no such task, labels or the tokenizer are missing, or the clips are a stream.
    """
    if kind not in AUTO_CLASSES:
        raise ValueError(f"The task is {kind!r}; choose from {', '.join(map(repr, AUTO_CLASSES))}.")
    if isinstance(clips, SpeechStream):
        raise ValueError(
            "All labels are needed beforehand. Leave `streaming` out, or take the objective 'distillation'."
        )
    label_column = label_column or DEFAULT_COLUMNS[kind]
    if label_column not in clips.column_names:
        raise ValueError(
            f"A task needs labels, and the data set has no column {label_column!r}; it has "
            f"{', '.join(clips.column_names)}. Name the column with `label_column`, or take the objective 'distillation'."
        )
    labels = clips[label_column][:]
    missing = [str(row) for row, label in enumerate(labels) if label is None or label == ""]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(labels)} clips have nothing in the column {label_column!r}: rows "
            f"{first_names(missing)}. Leave them out, or take the objective 'distillation'."
        )
    if kind == "ctc":
        tokenizer = _load_tokenizer(pretrained_model_name_or_path)
        return Task(AUTO_CLASSES[kind], label_column, partial(_encode_transcripts, tokenizer), tokenizer=tokenizer)
    encode, options = _classes(pretrained_model_name_or_path, clips.features[label_column], labels)
    return Task(AUTO_CLASSES[kind], label_column, encode, options)


def _load_tokenizer(pretrained_model_name_or_path: str | Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(pretrained_model_name_or_path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"CTC needs a tokenizer, and {str(pretrained_model_name_or_path)!r} has none that loads: {error}. Take a "
            "checkpoint that was fine-tuned with CTC, or save a tokenizer into its folder."
        ) from error


def _encode_transcripts(tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> torch.Tensor:
    rows = [torch.tensor(tokenizer(text).input_ids) for text in labels]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED_LABEL)


def _classes(
    pretrained_model_name_or_path: str | Path, feature: Any, labels: Sequence[Any]
) -> tuple[Callable[[Sequence[Any]], torch.Tensor], dict[str, Any]]:
    """The checkpoint's own classes where it knows all of the labels, else those of the data set."""
    name_of = getattr(feature, "int2str", str)
    present = sorted({name_of(label) for label in labels})
    label2id = AutoConfig.from_pretrained(pretrained_model_name_or_path).label2id or {}
    options: dict[str, Any] = {}
    if not set(present) <= set(label2id):
        names = list(getattr(feature, "names", None) or present)
        label2id = {name: number for number, name in enumerate(names)}
        options = {"label2id": label2id, "id2label": dict(enumerate(names))}

    def encode(labels: Sequence[Any]) -> torch.Tensor:
        return torch.tensor([label2id[name_of(label)] for label in labels])

    return encode, options
