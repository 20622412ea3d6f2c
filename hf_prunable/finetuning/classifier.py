"""Fine-tuning of a classifier of clips on transformers' Trainer: how it is trained, and what it is worth then."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from safetensors.torch import load_file
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments
from transformers.utils import logging

from ..data.batches import LabelledClips, LabelledCollator
from ..data.speech_commands_tasks import CLIP_SECONDS
from ..modeling.loading import load_complete
from ..runtime.auto_classes import AUDIO_CLASSIFICATION
from ..runtime.checkpoints import last_whole_checkpoint, remove_damaged_checkpoints
from ..runtime.files import save_tensors_atomically, write_text_atomically
from ..runtime.settings import result_settings
from ..truncation.truncated_model import truncate
from .arguments import TruncationArguments
from .metrics import ClassificationMetric
from .training_clock import TrainingClock


logger = logging.get_logger(__name__)

WEIGHTS_FILE, RESULT_FILE = "weights.safetensors", "result.json"

# Arguments that change the result of fine-tuning, beside those of any training.
FINETUNING_SETTINGS = ("num_train_epochs", "eval_strategy", "load_best_model_at_end", "metric_for_best_model")


@dataclass
class FinetuningArguments(TrainingArguments):
    """The Trainer's arguments with defaults for fine-tuning on Speech Commands.

    Epochs are those of arXiv 2408.11858; rate, warm-up and batch are ours.
    """

    num_train_epochs: float = field(default=20.0, metadata={"help": "Passes over the training clips."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak rate."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps in which the rate rises; below 1, part of all."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Clips per device and step."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Evaluated clips per device at a time."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When validation clips are looked at."})
    save_strategy: str = field(default="epoch", metadata={"help": "When a checkpoint is written."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many training checkpoints to keep."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End with the checkpoint that is best on the validation clips."}
    )
    metric_for_best_model: str | None = field(default="accuracy", metadata={"help": "By this figure."})
    logging_steps: float = field(default=50, metadata={"help": "Log the loss every so many steps."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Must stay as it is: the time of a resumed run is counted on."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay as it is: clips are read late."})

    def settings(self) -> dict[str, Any]:
        """What a result depends on, as plain values."""
        batch_size = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        return result_settings(self, *FINETUNING_SETTINGS) | {"batch_size": batch_size}


@dataclass
class FinetunedResult:
    """What fine-tuning one model gave.

    Attributes:
        num_layers: Blocks kept: 1 to `num_layers`.
        seed: Of the head and of training.
        metrics: Of the test clips: see `ClassificationMetric`.
        predictions: The class of each test clip.
        epochs: That were trained.
        train_seconds_per_epoch: Without evaluation and checkpoints.
        history: Losses and validation figures by step.
    """

    num_layers: int
    seed: int
    metrics: dict[str, float]
    predictions: list[int]
    epochs: float
    train_seconds_per_epoch: float
    history: list[dict[str, Any]]


def make_classifier(
    options: TruncationArguments, class_names: Sequence[str], num_layers: int, seed: int
) -> PreTrainedModel:
    """Loads an encoder with a new head, truncated, with what is not to be trained frozen.

    Args:
        options: With the checkpoint, the kind of head and what is frozen.
        class_names: In the order of their numbers.
        num_layers: Blocks to keep: 1 to `num_layers`.
        seed: Of the head's first weights.

    Raises:
        ValueError: If the family is not supported, the checkpoint is not whole, or there are not so many layers.
    """
    config: dict[str, Any] = {
        "label2id": {name: number for number, name in enumerate(class_names)},
        "id2label": dict(enumerate(class_names)),
        "use_weighted_layer_sum": options.weighted_layers,
    }
    if options.weighted_layers:
        # A dropped layer has no hidden state to take part in the sum.
        config["layerdrop"] = 0.0
    torch.manual_seed(seed)
    model = truncate(load_complete(options.model_name_or_path, auto_class=AUDIO_CLASSIFICATION, **config), num_layers)
    if options.freeze_feature_encoder:
        model.freeze_feature_encoder()
    if options.freeze_base_model:
        model.freeze_base_model()
    return model


def fine_tune(
    model: PreTrainedModel, splits: DatasetDict, feature_extractor: Any, args: FinetuningArguments
) -> FinetunedResult:
    """Trains a classifier, evaluates it on the test clips and leaves it with its best weights.

    Done again with the same folder, it goes on from the last whole checkpoint, or reads what it had come to.

    Args:
        model: With a head.
        splits: "train", "validation" and "test", with columns `audio` and `label`.
        feature_extractor: Of the model's checkpoint.
        args: Of training; `output_dir` is this model's own folder.
    """
    folder = Path(args.output_dir)
    if (folder / RESULT_FILE).exists():
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return FinetunedResult(**json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    metric = ClassificationMetric(keep_in_memory=True)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metric.compute(predictions=prediction.predictions, references=prediction.label_ids)

    clips = {split: LabelledClips(splits[split], sampling_rate=feature_extractor.sampling_rate) for split in splits}
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=clips["train"],
        eval_dataset=clips["validation"],
        data_collator=LabelledCollator(feature_extractor, torch.tensor, seconds=CLIP_SECONDS),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        callbacks=[TrainingClock()],
    )
    remove_damaged_checkpoints(folder)
    checkpoint = last_whole_checkpoint(folder)
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    # A resumed Trainer makes the clock anew from its checkpoint.
    clock = trainer.pop_callback(TrainingClock)
    test = trainer.predict(clips["test"], metric_key_prefix="test")
    result = FinetunedResult(
        num_layers=model.config.num_hidden_layers,
        seed=args.seed,
        metrics={name: test.metrics[f"test_{name}"] for name in metric.compute(predictions=[0], references=[0])},
        predictions=np.asarray(test.predictions).tolist(),
        epochs=trainer.state.epoch,
        train_seconds_per_epoch=clock.seconds / trainer.state.epoch,
        history=trainer.state.log_history,
    )
    if trainer.is_world_process_zero():
        save_tensors_atomically(folder / WEIGHTS_FILE, trainer.accelerator.get_state_dict(trainer.model))
        write_text_atomically(folder / RESULT_FILE, json.dumps(vars(result)) + "\n")
    trainer.accelerator.wait_for_everyone()
    return result
