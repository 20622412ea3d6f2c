"""Labels of clips for a model with a head: transcripts for CTC, class names for classification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ..runtime.auto_classes import AUDIO_CLASSIFICATION, CTC
from ..runtime.messages import first_names
from .audio import clip_name, undecoded_audio
from .streaming import SpeechStream
from .transcripts import check_characters, encode_transcripts


DEFAULT_COLUMNS = {"ctc": "text", "classification": "label"}
AUTO_CLASSES = {"ctc": CTC, "classification": AUDIO_CLASSIFICATION}


@dataclass
class LabelEncoding:
    """How the labels of a data set become the `labels` of a model.

    Attributes:
        auto_class: Name of the Auto class that loads a model with the head for these labels.
        label_column: Name of the column with labels.
        encode: Function from the labels of a batch to a tensor: token ids of shape (batch, tokens) for CTC, class ids of
            shape (batch,) for classification.
        model_options: Configuration values for loading the model: `label2id` and `id2label` if its classes change.
        tokenizer: Tokenizer of the transcripts, to be saved with the model; `None` for classification.
    """

    auto_class: str
    label_column: str
    encode: Callable[[Sequence[Any]], torch.Tensor]
    model_options: dict[str, dict] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerBase | None = None


def load_label_encoding(
    task: str,
    pretrained_model_name_or_path: str | Path,
    clips: Dataset | SpeechStream,
    label_column: str | None = None,
    held_out_clips: Dataset | None = None,
) -> LabelEncoding:
    """Checks all labels of a data set and finds their encoding for a checkpoint.

    Args:
        task: "ctc" for transcripts, with the checkpoint's tokenizer; or "classification" for class names.
        pretrained_model_name_or_path: Folder or Hub id of the checkpoint.
        clips: Clips with a column of labels.
        label_column: Name of this column; by default "text" for CTC and "label" for classification.
        held_out_clips: Clips with the same columns, on which the model is evaluated.

    Raises:
        ValueError: If the task is unknown, labels or the tokenizer are missing, or the clips are a stream.
    """
    if task not in AUTO_CLASSES:
        raise ValueError(f"`task` is {task!r}; choose from {', '.join(map(repr, AUTO_CLASSES))}.")
    if isinstance(clips, SpeechStream):
        raise ValueError(
            "All labels are checked before training, which a stream does not allow. Leave `streaming` out, or take the "
            "objective 'distillation'."
        )
    label_column = label_column or DEFAULT_COLUMNS[task]
    if label_column not in clips.column_names:
        raise ValueError(
            f"The task {task!r} needs labels, and the data set has no column {label_column!r}; it has "
            f"{', '.join(clips.column_names)}. Name the column with `label_column`, or take the objective 'distillation'."
        )
    all_clips = [clips] if held_out_clips is None else [clips, held_out_clips]
    labels = [label for part in all_clips for label in part[label_column][:]]
    missing = [name for part in all_clips for name in clips_without_label(part, label_column)]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(labels)} clips have nothing in the column {label_column!r}: {first_names(missing)}. "
            "Leave them out, or take the objective 'distillation'."
        )
    if task == "ctc":
        tokenizer = _load_tokenizer(pretrained_model_name_or_path)
        # The folder of a tokenizer alone has no configuration.
        config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path)
        vocab_size = AutoConfig.from_pretrained(pretrained_model_name_or_path).vocab_size if config else len(tokenizer)
        check_characters(tokenizer, labels, label_column, vocab_size)
        return LabelEncoding(
            AUTO_CLASSES[task], label_column, partial(encode_transcripts, tokenizer), tokenizer=tokenizer
        )
    encode, options = _class_encoding(pretrained_model_name_or_path, clips.features[label_column], labels)
    return LabelEncoding(AUTO_CLASSES[task], label_column, encode, options)


def clips_without_label(clips: Dataset, label_column: str) -> list[str]:
    """Names of the clips whose label is missing: no value, text without a character, NaN, or an unlabelled class (-1).

    Args:
        clips: Clips with a column of labels.
        label_column: Name of this column.
    """
    is_class = isinstance(clips.features[label_column], ClassLabel)
    rows = [
        row
        for row, label in enumerate(clips[label_column][:])
        if label is None
        or label != label
        or (isinstance(label, str) and not label.strip())
        or (is_class and label < 0)
    ]
    audio = undecoded_audio(clips) if "audio" in clips.column_names else None
    return [clip_name(None if audio is None else audio[row]["audio"], row) for row in rows]


def _load_tokenizer(pretrained_model_name_or_path: str | Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(pretrained_model_name_or_path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"CTC needs a tokenizer, and {str(pretrained_model_name_or_path)!r} has none that loads: {error}. Take a "
            "checkpoint that was fine-tuned with CTC, or save a tokenizer into its folder."
        ) from error


def _class_encoding(
    pretrained_model_name_or_path: str | Path, feature: Any, labels: Sequence[Any]
) -> tuple[Callable[[Sequence[Any]], torch.Tensor], dict[str, dict]]:
    """Uses the checkpoint's own class ids if it knows all the labels, else those of the data set."""
    name_of = getattr(feature, "int2str", str)
    if kinds := {type(label).__name__ for label in labels if not isinstance(label, (str, int))}:
        raise ValueError(
            f"Classes are names or whole numbers, and the labels hold {', '.join(sorted(kinds))}. Name the column of the "
            "classes with `label_column`."
        )
    present = sorted({name_of(label) for label in labels})
    label2id = AutoConfig.from_pretrained(pretrained_model_name_or_path).label2id or {}
    options: dict[str, dict] = {}
    if not set(present) <= set(label2id):
        names = list(getattr(feature, "names", None) or present)
        if len(names) < 2:
            raise ValueError(f"All labels are {names[0]!r}. Give clips of two classes or more.")
        label2id = {name: class_id for class_id, name in enumerate(names)}
        options = {"label2id": label2id, "id2label": dict(enumerate(names))}

    def encode(labels: Sequence[Any]) -> torch.Tensor:
        return torch.tensor([label2id[name_of(label)] for label in labels])

    return encode, options
