"""Fine-tunes low-rank adapters (LoRA) on the queries and values of a model for word classification, and merges them.

    pip install peft
    python examples/finetune_lora.py --model_name_or_path wavlm-pruned --dataset_name speech_commands_v0.02 \
        --output_dir wavlm-pruned-words --num_train_epochs 5 --learning_rate 1e-3

`--audio recordings/ --target_sparsity 0.5` prunes a dense model first, in one shot on speech without labels.
`--words yes no up down` uses these words only. Further options are those of transformers' Trainer. The merged model is an
ordinary checkpoint of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoFeatureExtractor,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)

from hf_prunable import load_prunable, one_shot_prune
from hf_prunable.data.batches import LabelledClips, LabelledCollator
from hf_prunable.data.speech_commands_tasks import load_speech_commands_task
from hf_prunable.data.speech_dataset import load_speech_dataset


@dataclass
class AdapterArguments:
    """Checkpoint, data set and adapters."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    dataset_name: str = field(
        metadata={"help": "Speech Commands: the archive, the extracted folder, or a parquet copy."}
    )
    words: list[str] | None = field(default=None, metadata={"help": "Words to classify; all words by default."})
    rank: int = field(default=8, metadata={"help": "Rank of the adapters."})
    audio: str | None = field(
        default=None, metadata={"help": "Speech without labels for one-shot pruning: a folder or a Hub id."}
    )
    target_sparsity: float | None = field(
        default=None,
        metadata={
            "help": "Fraction of the encoder's parameters to remove first; by default the model stays as it is."
        },
    )

    def __post_init__(self):
        if (self.audio is None) != (self.target_sparsity is None):
            raise ValueError("`--audio` and `--target_sparsity` belong together. Give both or neither.")


def main() -> None:
    arguments, training = HfArgumentParser((AdapterArguments, TrainingArguments)).parse_args_into_dataclasses()
    # The collator needs columns that the model does not take.
    training.remove_unused_columns = False
    feature_extractor = AutoFeatureExtractor.from_pretrained(arguments.model_name_or_path)
    sampling_rate = feature_extractor.sampling_rate
    splits, _ = load_speech_commands_task(
        arguments.dataset_name, "word", sampling_rate=sampling_rate, words=arguments.words
    )
    names = splits["train"].features["label"].names
    classes = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: label for label, name in enumerate(names)},
    }
    # The stock class of WavLM hands the weights of queries and values on, past their adapters.
    model = load_prunable(arguments.model_name_or_path, "AutoModelForAudioClassification", **classes)
    if arguments.target_sparsity is not None:
        model = one_shot_prune(
            model,
            load_speech_dataset(arguments.audio),
            target_sparsity=arguments.target_sparsity,
            feature_extractor=feature_extractor,
        )
    # The head is new, so all of its weights are trained.
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=arguments.rank,
            lora_alpha=2 * arguments.rank,
            target_modules=["q_proj", "v_proj"],
            modules_to_save=["projector", "classifier"],
        ),
    )
    adapted.print_trainable_parameters()
    clips = {split: LabelledClips(splits[split], sampling_rate=sampling_rate) for split in splits}
    trainer = Trainer(
        model=adapted,
        args=training,
        train_dataset=clips["train"],
        data_collator=LabelledCollator(feature_extractor, torch.tensor, seconds=1.0),
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    before = trainer.predict(clips["test"])
    trainer.train()
    after = trainer.predict(clips["test"])
    accuracy = (after.predictions == after.label_ids).mean()
    print(f"Test loss: {before.metrics['test_loss']:.3f} before, {after.metrics['test_loss']:.3f} after")
    print(f"Test accuracy: {accuracy:.3f}")
    adapted.merge_and_unload().save_pretrained(training.output_dir)
    feature_extractor.save_pretrained(training.output_dir)


if __name__ == "__main__":
    main()
