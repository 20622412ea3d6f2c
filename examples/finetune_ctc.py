"""Fine-tunes a pruned, truncated or stock model for speech recognition, with CTC over the characters of the transcripts.

    python examples/finetune_ctc.py --model_name_or_path wavlm-pruned --dataset_name recordings \
        --output_dir wavlm-pruned-ctc --num_train_epochs 30 --learning_rate 1e-4

`recordings` is a folder of audio with a `metadata.csv` (columns `file_name` and `text`), parquet, or a data set on the Hub.
Further options are those of transformers' Trainer. The result works in the pipeline "automatic-speech-recognition".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import (
    AutoFeatureExtractor,
    AutoModelForCTC,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    Wav2Vec2CTCTokenizer,
)

# Importing the package registers pruned models with the Auto classes.
from hf_prunable.data.batches import LabelledClips, LabelledCollator
from hf_prunable.data.labels import load_label_encoding
from hf_prunable.data.speech_dataset import load_speech_dataset, scan_speech_dataset


SPECIAL_TOKENS = ("<pad>", "<unk>", "|")


@dataclass
class RecognitionArguments:
    """Checkpoint and data set."""

    model_name_or_path: str = field(metadata={"help": "Folder or Hub id of the checkpoint."})
    dataset_name: str = field(
        metadata={"help": "Folder, parquet or Hub id of audio with transcripts in the column `text`."}
    )
    min_seconds: float = field(default=0.2, metadata={"help": "Shortest clip that is used, in seconds."})


def make_tokenizer(texts: Sequence[str], folder: Path) -> Wav2Vec2CTCTokenizer:
    """Makes a tokenizer of all characters in the transcripts and saves it.

    Args:
        texts: Transcripts. Upper and lower case are different characters.
        folder: Output folder; created if missing.

    Returns:
        The tokenizer.
    """
    letters = sorted(set("".join(texts)) - {" ", "|"})
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: token_id for token_id, token in enumerate([*SPECIAL_TOKENS, *letters])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    # CTC needs no tokens for the beginning and the end of a sentence.
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    tokenizer.save_pretrained(folder)
    return tokenizer


def main() -> None:
    arguments, training = HfArgumentParser((RecognitionArguments, TrainingArguments)).parse_args_into_dataclasses()
    # The collator needs columns that the model does not take.
    training.remove_unused_columns = False
    feature_extractor = AutoFeatureExtractor.from_pretrained(arguments.model_name_or_path)
    clips, _ = scan_speech_dataset(
        load_speech_dataset(arguments.dataset_name),
        sampling_rate=feature_extractor.sampling_rate,
        min_seconds=arguments.min_seconds,
    )
    tokenizer = make_tokenizer(clips["text"][:], Path(training.output_dir))
    labels = load_label_encoding("ctc", training.output_dir, clips)
    model = AutoModelForCTC.from_pretrained(
        arguments.model_name_or_path,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        ctc_loss_reduction="mean",
        # The loss of a transcript that is too long for its clip is infinite.
        ctc_zero_infinity=True,
    )
    model.freeze_feature_encoder()
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=LabelledClips(
            clips, sampling_rate=feature_extractor.sampling_rate, label_column=labels.label_column
        ),
        data_collator=LabelledCollator(feature_extractor, labels.encode),
    )
    trainer.train()
    trainer.save_model()
    feature_extractor.save_pretrained(training.output_dir)


if __name__ == "__main__":
    main()
