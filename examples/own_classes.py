"""From a folder of classes to a pipeline: scores the layers, truncates, fine-tunes, and classifies the test clips.

    python examples/own_classes.py --model_name_or_path microsoft/wavlm-base-plus --dataset_name classes/ \
        --output_dir my-classifier --num_train_epochs 10 --learning_rate 3e-4

`classes/` has one folder of audio files per class; a table with paths and labels works too. Further options are those of
transformers' Trainer. The result is a stock checkpoint, which needs nothing of hf_prunable. `hf-prunable
finetune-speech-commands` does the same with checks, a comparison and a model card; this script shows the parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from sklearn.metrics import accuracy_score
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_prunable import choose_layer, layer_convexity, truncate
from hf_prunable.data.batches import LabelledClips, LabelledCollator
from hf_prunable.data.labelled_clips import LabelledClipsSettings, load_labelled_clips
from hf_prunable.data.labelled_sources import LabelColumns


@dataclass
class OwnClassesArguments:
    """Checkpoint and labelled clips."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    dataset_name: str = field(metadata={"help": "Folder of classes, or a table with paths and labels."})
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the classes; by default `label`, or the folders."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Column of groups, such as speakers, of which none comes into two splits."}
    )


def main() -> None:
    arguments, training = HfArgumentParser((OwnClassesArguments, TrainingArguments)).parse_args_into_dataclasses()
    # The collator needs columns that the model does not take.
    training.remove_unused_columns = False
    feature_extractor = AutoFeatureExtractor.from_pretrained(arguments.model_name_or_path)
    sampling_rate = feature_extractor.sampling_rate
    task = load_labelled_clips(
        arguments.dataset_name,
        LabelColumns(label=arguments.label_column),
        LabelledClipsSettings(group_column=arguments.group_column),
        sampling_rate=sampling_rate,
    )

    model = AutoModelForAudioClassification.from_pretrained(
        arguments.model_name_or_path,
        id2label=dict(enumerate(task.class_names)),
        label2id={name: label for label, name in enumerate(task.class_names)},
    )
    profile = layer_convexity(model, task.splits["train"], feature_extractor, labels=["label"], criteria=["convexity"])
    choice = choose_layer(profile, labels="label")
    print(f"Keeping {choice.num_layers} of {model.config.num_hidden_layers} layers.")
    model = truncate(model, choice.num_layers)

    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=LabelledClips(task.splits["train"], sampling_rate=sampling_rate),
        data_collator=LabelledCollator(feature_extractor, torch.tensor, seconds=task.clip_seconds),
    )
    trainer.train()
    model.save_pretrained(training.output_dir)
    feature_extractor.save_pretrained(training.output_dir)

    classify = pipeline("audio-classification", model=training.output_dir)
    samples = round(task.clip_seconds * sampling_rate)
    test_clips = LabelledClips(task.splits["test"], sampling_rate=sampling_rate)
    found = [classify(clip["waveform"][:samples])[0]["label"] for clip in test_clips]
    accuracy = accuracy_score([task.class_names[label] for label in test_clips.labels], found)
    print(f"Test accuracy of the pipeline: {accuracy:.3f} ({len(found)} clips, {len(task.class_names)} classes)")


if __name__ == "__main__":
    main()
