"""Fine-tuning and evaluation of a clip classifier with the Trainer of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    Wav2Vec2FeatureExtractor,
)
from transformers.utils import logging

from ..data.batches import LabelledClips, LabelledCollator
from ..data.classification_task import ClassificationTask
from ..modeling.loading import load_complete
from ..modeling.pretrained import PrunableModelMixin
from ..runtime.auto_classes import AUDIO_CLASSIFICATION
from ..runtime.checkpoints import common_checkpoint
from ..runtime.files import is_whole, read_tensors, save_tensors_atomically, write_text_atomically
from ..runtime.settings import result_settings
from ..runtime.trackers import tracked_stage
from ..truncation.truncated_model import truncate
from .arguments import TruncationArguments
from .metrics import ClassificationMetric
from .training_clock import TrainingClock


logger = logging.get_logger(__name__)

WEIGHTS_FILE, RESULT_FILE = "weights.safetensors", "result.json"

# Arguments that change the result of fine-tuning, besides those that change the result of any training.
FINETUNING_SETTINGS = ("num_train_epochs", "eval_strategy", "load_best_model_at_end", "metric_for_best_model")
# Likewise; most runs leave them off, and files of earlier versions have none of them.
SELDOM_GIVEN = ("data_seed", "dataloader_drop_last", "eval_steps", "label_smoothing_factor")


@dataclass
class FinetuningArguments(TrainingArguments):
    """The Trainer's arguments with defaults for fine-tuning on Speech Commands.

    The number of epochs is that of arXiv 2408.11858; learning rate, warm-up and batch size are our choices.
    """

    output_dir: str = field(
        default="trainer_output", metadata={"help": "Folder for the fine-tuned model; it must be new or empty."}
    )
    num_train_epochs: float = field(default=20.0, metadata={"help": "Number of passes over the training clips."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Warm-up steps of the learning rate; below 1, a fraction of all steps."}
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Training clips per device and step."})
    per_device_eval_batch_size: int = field(
        default=32, metadata={"help": "Validation and test clips per device and batch."}
    )
    eval_strategy: str = field(
        default="epoch", metadata={"help": "When to evaluate on the validation clips: 'no', 'steps' or 'epoch'."}
    )
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to save a training checkpoint: 'no', 'steps', 'epoch' or 'best'."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Maximum number of training checkpoints."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "Use the checkpoint with the best validation metric instead of the last one."}
    )
    metric_for_best_model: str | None = field(
        default="accuracy", metadata={"help": "Validation metric that selects the best checkpoint."}
    )
    logging_steps: float = field(default=50, metadata={"help": "Steps between two log entries."})
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Must be true: the training time of a resumed run is continued."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must be false: clips are decoded while training runs."}
    )

    def settings(self) -> dict[str, Any]:
        """Returns the arguments that a result depends on, as values that JSON can hold."""
        batch_size = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        seldom_given = {name: getattr(self, name) or None for name in SELDOM_GIVEN}
        return result_settings(self, *FINETUNING_SETTINGS) | seldom_given | {"batch_size": batch_size}


@dataclass
class FinetunedResult:
    """Result of fine-tuning one model.

    Attributes:
        num_layers: Number of transformer layers.
        seed: Random seed of the new head and of training.
        metrics: Metrics of the test clips, see `ClassificationMetric`.
        predictions: Predicted class id of each test clip.
        epochs: Number of trained epochs.
        train_seconds_per_epoch: Training time per epoch in seconds, without evaluation and checkpoints.
        history: Log of the Trainer: losses and validation metrics by step.
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
) -> PrunableModelMixin:
    """Loads an encoder with a new classification head, truncates it, and freezes what is not to be trained.

    Args:
        options: Options that name the checkpoint, the kind of head and the frozen parts.
        class_names: Names of the classes, in the order of their ids.
        num_layers: Number of transformer layers to keep, from the first one on.
        seed: Random seed of the head's initial weights.

    Raises:
        ValueError: If the model family is not supported, the checkpoint lacks weights of the encoder, or the model does
            not have that many layers.
    """
    config: dict[str, Any] = {
        "label2id": {name: class_id for class_id, name in enumerate(class_names)},
        "id2label": dict(enumerate(class_names)),
        "use_weighted_layer_sum": options.weighted_layers,
    }
    if options.weighted_layers:
        # The weighted sum needs the hidden states of all layers, which layer drop would leave out.
        config["layerdrop"] = 0.0
    torch.manual_seed(seed)
    model = truncate(load_complete(options.model_name_or_path, auto_class=AUDIO_CLASSIFICATION, **config), num_layers)
    if options.freeze_feature_encoder:
        model.base_model.feature_extractor._freeze_parameters()
    if options.freeze_base_model:
        model.base_model.requires_grad_(False)
    return model


def fine_tune(
    model: PreTrainedModel,
    task: ClassificationTask,
    feature_extractor: Wav2Vec2FeatureExtractor,
    args: FinetuningArguments,
    callbacks: Sequence[TrainerCallback] = (),
) -> FinetunedResult:
    """Trains a classifier and evaluates it on the test clips; the model ends with its best weights.

    A repeated call with the same output folder resumes from the last complete checkpoint, or returns the stored result.

    Args:
        model: Model with a classification head; it is changed in place.
        task: Clips with their classes.
        feature_extractor: Feature extractor of the model's checkpoint.
        args: Arguments of the Trainer; `output_dir` must be a folder for this model alone.
        callbacks: Further callbacks of the Trainer.
    """
    folder = Path(args.output_dir)
    stored = _stored_result(model, folder)
    if stored is not None:
        return stored
    trainer = _make_trainer(model, task, feature_extractor, args)
    for callback in callbacks:
        trainer.add_callback(callback)
    with tracked_stage(trainer, folder.parent, folder.name):
        trainer.train(resume_from_checkpoint=common_checkpoint(args))
    result = _evaluate(
        trainer, model, LabelledClips(task.splits["test"], sampling_rate=feature_extractor.sampling_rate)
    )
    if trainer.is_world_process_zero():
        save_tensors_atomically(folder / WEIGHTS_FILE, trainer.accelerator.get_state_dict(trainer.model))
        write_text_atomically(folder / RESULT_FILE, json.dumps(vars(result)) + "\n")
    trainer.accelerator.wait_for_everyone()
    return result


def _stored_result(model: PreTrainedModel, folder: Path) -> FinetunedResult | None:
    """Loads weights and result of a finished training; returns `None` if it was not finished, or files are damaged."""
    if not (folder / RESULT_FILE).exists() or not is_whole(folder / WEIGHTS_FILE):
        return None
    try:
        result = FinetunedResult(**json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        logger.warning(f"{folder / RESULT_FILE} is damaged ({error!r}). Going back to the last checkpoint.")
        return None
    model.load_state_dict(read_tensors(folder / WEIGHTS_FILE)[0])
    return result


def _make_trainer(
    model: PreTrainedModel,
    task: ClassificationTask,
    feature_extractor: Wav2Vec2FeatureExtractor,
    args: FinetuningArguments,
) -> Trainer:
    metric = ClassificationMetric(keep_in_memory=True)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metric.compute(predictions=prediction.predictions, references=prediction.label_ids)

    sampling_rate = feature_extractor.sampling_rate
    return Trainer(
        model=model,
        args=args,
        train_dataset=LabelledClips(task.splits["train"], sampling_rate=sampling_rate),
        eval_dataset=LabelledClips(task.splits["validation"], sampling_rate=sampling_rate),
        data_collator=LabelledCollator(feature_extractor, torch.tensor, seconds=task.clip_seconds),
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        callbacks=[TrainingClock()],
    )


def _evaluate(trainer: Trainer, model: PreTrainedModel, test_clips: LabelledClips) -> FinetunedResult:
    # A resumed Trainer replaces the clock by that of its checkpoint.
    (clock,) = (callback for callback in trainer.callback_handler.callbacks if isinstance(callback, TrainingClock))
    test = trainer.predict(test_clips)
    metrics = ClassificationMetric(keep_in_memory=True).compute(
        predictions=test.predictions, references=test.label_ids
    )
    epochs = trainer.state.epoch
    return FinetunedResult(
        num_layers=model.config.num_hidden_layers,
        seed=trainer.args.seed,
        metrics=metrics,
        predictions=np.asarray(test.predictions).tolist(),
        epochs=epochs,
        train_seconds_per_epoch=clock.seconds / epochs,
        # The last entry sums up the training, but of a resumed one only the part since then.
        history=[entry for entry in trainer.state.log_history if "train_runtime" not in entry],
    )
