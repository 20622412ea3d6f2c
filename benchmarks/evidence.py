"""Does learning the shape pay? Students of one size, trained for the same number of steps, side by side.

    python -m benchmarks.evidence --teacher examples/wavlm-mini --dataset_name recordings \
        --speech_commands speech_commands_v0.02 --output_dir evidence

Each row's result is a JSON file of its own, and rows that have one are not run again.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor, HfArgumentParser, PreTrainedModel, set_seed
from transformers.utils import logging

from benchmarks.probe import word_accuracy
from hf_prunable import compact, load_prunable
from hf_prunable.files import write_text_atomically
from hf_prunable.measurement import describe_machine
from hf_prunable.pruning import PruningRun
from hf_prunable.speech_data import load_speech_dataset, scan_speech_dataset, split_held_out
from hf_prunable.student import NOISE_OFF
from hf_prunable.training import PruningTrainingArguments


logger = logging.get_logger("hf_prunable.benchmarks")

ROWS = ("teacher", "learned", "learned_without_ste", "random_shape", "first_layers")


@dataclass
class EvidenceArguments:
    """What to compare."""

    teacher: str = field(metadata={"help": "Checkpoint that all students come from and learn from."})
    dataset_name: str = field(metadata={"help": "Folder of audio to distil on."})
    speech_commands: str = field(metadata={"help": "Folder with the extracted Speech Commands archive."})
    rows: list[str] = field(default_factory=lambda: list(ROWS), metadata={"help": "Which rows to run."})
    target_sparsity: float = field(
        default=0.72, metadata={"help": "Part of the dense encoder's parameters to remove."}
    )
    crop_seconds: float = field(default=2.0, metadata={"help": "Length of the crops that are trained on."})
    held_out_fraction: float = field(default=0.1, metadata={"help": "Part of the clips kept for evaluation."})


def random_shape(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """A student whose units are drawn at random to the target's size; all blocks stay."""
    student = load_prunable(teacher, dtype=torch.float32, **NOISE_OFF)
    student.attach_gates(("qk", "vo", "int"))
    for _, gate in student.named_gates():
        gate.log_alpha.data = torch.rand(gate.num_gates) + 1.0
    return _sliced(student, target_sparsity)


def first_layers(teacher: str, target_sparsity: float) -> PreTrainedModel:
    """A student of the teacher's first layers: as many whole ones as fit, and the next at random units to the size."""
    depth = load_prunable(teacher).config.num_hidden_layers
    for num_layers in range(1, depth + 1):
        student = load_prunable(
            teacher,
            dtype=torch.float32,
            num_hidden_layers=num_layers,
            dense_num_hidden_layers=depth,
            **NOISE_OFF,
        )
        if student.num_parameters() > (1 - target_sparsity) * student.config.dense_num_parameters:
            break
    student.attach_gates(("qk", "vo", "int"))
    for name, gate in student.named_gates():
        is_last = f"layers.{num_layers - 1}." in name
        gate.log_alpha.data = torch.rand(gate.num_gates) + (1.0 if is_last else 3.0)
    return _sliced(student, target_sparsity)


def _sliced(student: PreTrainedModel, target_sparsity: float) -> PreTrainedModel:
    """Compacts by rank, with every kept unit at its full weight: these gates have learned nothing to fold in."""
    for _, gate in student.named_gates():
        # From 2.4 up the deterministic value is 1.
        gate.log_alpha.data += 3.0
    return compact(student, target_sparsity)


def run_row(row: str, options: EvidenceArguments, training: PruningTrainingArguments, folder: Path) -> dict:
    """Trains one student and measures it.

    Raises:
        ValueError: If there is no such row.
    """
    set_seed(training.seed)
    feature_extractor = AutoFeatureExtractor.from_pretrained(options.teacher)

    def accuracy(model: PreTrainedModel) -> dict:
        return word_accuracy(model, feature_extractor, options.speech_commands)

    if row == "teacher":
        teacher = load_prunable(options.teacher, dtype=torch.float32)
        return {"num_parameters": teacher.num_parameters(), "words": accuracy(teacher)}
    students = {"random_shape": random_shape, "first_layers": first_layers}
    if row in students:
        student = students[row](options.teacher, options.target_sparsity)
        training.final_steps += training.max_steps
    elif row in ("learned", "learned_without_ste"):
        student = load_prunable(options.teacher, dtype=torch.float32, **NOISE_OFF)
        student.attach_gates(ste=row == "learned")
    else:
        raise ValueError(f"There is no row {row!r}; choose from {', '.join(ROWS)}.")

    clips, _ = scan_speech_dataset(
        load_speech_dataset(options.dataset_name),
        sampling_rate=feature_extractor.sampling_rate,
        min_seconds=options.crop_seconds,
    )
    train_clips, held_out_clips = split_held_out(clips, fraction=options.held_out_fraction, seed=training.seed)
    training.output_dir = str(folder / f"{row}_training")
    run = PruningRun(
        student,
        load_prunable(options.teacher, dtype=torch.float32),
        training,
        train_clips=train_clips,
        held_out_clips=held_out_clips,
        feature_extractor=feature_extractor,
        crop_seconds=options.crop_seconds,
    )
    result, start = {}, time.perf_counter()
    if row not in students:
        run.learn_gates(options.target_sparsity)
        result["masked"] = {"held_out_loss": run.held_out_loss()}
        run.compact(options.target_sparsity)
    result["before_final_steps"] = {"held_out_loss": run.held_out_loss(), "words": accuracy(run.student)}
    run.train_student()
    seconds = time.perf_counter() - start
    run.student.save_pretrained(folder / row)
    return {
        **result,
        "num_parameters": run.student.num_parameters(),
        "held_out_loss": run.held_out_loss(),
        "words": accuracy(run.student),
        "seconds": seconds,
        "history": run.history,
        "shape": run.student.config.shape.to_dict(),
    }


def main() -> None:
    parser = HfArgumentParser((EvidenceArguments, PruningTrainingArguments))
    options, training = parser.parse_args_into_dataclasses()
    folder = Path(training.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for row in options.rows:
        path = folder / f"{row}_seed{training.seed}.json"
        if path.exists():
            logger.warning(f"{path} is there; not run again.")
            continue
        _, row_training = parser.parse_args_into_dataclasses()
        result = {"row": row, "seed": training.seed, "machine": describe_machine()}
        result |= run_row(row, options, row_training, folder)
        write_text_atomically(path, json.dumps(result, indent=1))
        print(json.dumps({key: value for key, value in result.items() if key not in ("history", "shape")}))


if __name__ == "__main__":
    main()
