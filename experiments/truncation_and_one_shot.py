"""Compares truncation, one-shot pruning, and truncation followed by one-shot pruning at the same sizes, without training.

    python -m experiments truncation_and_one_shot --teacher wavlm-mini --dataset_name LibriSpeech/train-clean-100 \
        --speech_commands speech_commands_v0.02 --output_dir truncation_and_one_shot

The numbers of layers to keep are chosen by graph convexity for words and for speakers; `--num_layers` adds further ones.
Each student writes one JSON file to the folder `raw`. Existing results are not made again, so the same command resumes an
interrupted comparison.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, HfArgumentParser, set_seed
from transformers.utils import logging

from benchmarks.result_files import RAW_FOLDER, without_keys, write_json
from experiments.cross_validation import SpeechCommandsProbes
from experiments.evidence_results import Run, is_finished, result_path
from experiments.one_shot_students import load_teacher
from experiments.split_audio import SplitAudio
from experiments.teacher_and_audio import FOLDERS, TeacherAndAudioArguments
from experiments.truncated_students import TruncatedStudent, choose_depth, plan_pairs, students_of
from experiments.truncation_and_one_shot_report import TASKS, write_report
from hf_prunable.modeling.pretrained import PrunableModelMixin
from hf_prunable.modeling.size import UnitCounts, count_macs
from hf_prunable.reporting.measurement import describe_machine


logger = logging.get_logger("hf_prunable.benchmarks")

CHOICES_FILE = "choices.json"
# Settings that all results depend on, and further ones of students with statistics.
TEACHER_SETTINGS = ("teacher", "speech_commands")
CALIBRATION_SETTINGS = (*FOLDERS, "num_crops", "crop_seconds", "held_out_every")
# Keys of a result that are too long to be logged.
LONG_KEYS = ("settings", "correct", "group_sizes")


@dataclass(kw_only=True)
class TruncationArguments(TeacherAndAudioArguments):
    """Teacher, depths, sizes and audio."""

    output_dir: str = field(metadata={"help": "Output folder."})
    num_layers: list[int] = field(
        default_factory=list, metadata={"help": "Further numbers of layers to keep, beside those that are chosen."}
    )
    target_sparsities: list[float] = field(
        default_factory=lambda: [0.72, 0.85],
        metadata={
            "help": "Fractions of the dense encoder's parameters to remove by truncation and one-shot pruning together."
        },
    )
    evidence: str | None = field(
        default=None,
        metadata={"help": "Output folder of `evidence`: its one-shot students are taken over, not made again."},
    )
    seed: int = field(default=42, metadata={"help": "Random seed of the calibration crops."})


class TruncationComparison:
    """Makes and evaluates students of one teacher.

    Args:
        options: Options of the experiment.

    Attributes:
        teacher: Dense base model.
        probes: Words and speakers of Speech Commands.

    Raises:
        ValueError: If a folder is missing, or the teacher is pruned or truncated.
    """

    def __init__(self, options: TruncationArguments):
        self.options = options
        folder, self.dataset_name, speech_commands = options.folders()
        self.teacher = load_teacher(folder)
        if not self.teacher.is_stock or self.teacher.config.dense_num_hidden_layers is not None:
            raise ValueError(f"The teacher {folder!r} is pruned or truncated. Give a dense checkpoint.")
        self.feature_extractor = AutoFeatureExtractor.from_pretrained(folder)
        self.probes = SpeechCommandsProbes(speech_commands, self.feature_extractor)

    @cached_property
    def teacher_features(self) -> np.ndarray:
        """The teacher's features of all clips of Speech Commands."""
        return self.probes.features(self.teacher)

    @cached_property
    def clips(self) -> torch.Tensor:
        """Calibration audio of shape (clips, samples)."""
        options = self.options
        audio = SplitAudio(self.dataset_name, self.feature_extractor, options.crop_seconds, options.held_out_every)
        return audio.calibration(options.num_crops, options.seed)

    def choose_depths(self) -> dict[str, Any]:
        """Chooses numbers of layers by task, see `choose_depth`."""
        return {name: choose_depth(task, self.teacher_features) for name, task in self.probes.tasks.items()}

    def run(self, student: TruncatedStudent) -> dict[str, Any]:
        """Makes and evaluates one student.

        Args:
            student: Layers and size of the student.

        Returns:
            Sizes, and accuracy and outcomes of words and speakers.
        """
        set_seed(self.options.seed)
        is_pruned = student.target_sparsity is not None
        model = student.make(self.teacher, self.clips if is_pruned else torch.zeros(0, 0))
        features = self.teacher_features if model is self.teacher else self.probes.features(model)
        return self._sizes(model) | {
            name: task.result(task.is_correct(task.fit(features), features))
            for name, task in self.probes.tasks.items()
        }

    def _sizes(self, model: PrunableModelMixin) -> dict[str, Any]:
        return {
            "num_parameters": model.num_parameters(),
            "macs": count_macs(model.config, UnitCounts.of(model.config.shape)),
            "layers": model.config.num_hidden_layers,
        }


def make_results(options: TruncationArguments, folder: Path) -> None:
    """Chooses the depths, and makes the students whose results do not exist yet.

    Args:
        options: Options of the experiment.
        folder: Output folder.

    Raises:
        ValueError: If an option is wrong, or a result exists that has other settings.
    """
    comparison = TruncationComparison(options)
    config, path = comparison.teacher.config, folder / CHOICES_FILE
    if wrong := [depth for depth in options.num_layers if not 1 <= depth <= config.num_hidden_layers]:
        raise ValueError(f"`num_layers` has {wrong}, but the teacher has layers 1 to {config.num_hidden_layers}.")
    settings = options.settings(TEACHER_SETTINGS)
    if not is_finished(path, settings):
        write_json(path, {"settings": settings, "choices": comparison.choose_depths()})
    choices = json.loads(path.read_text(encoding="utf-8"))["choices"]
    depths = [*(choice["num_layers"] for choice in choices.values()), *options.num_layers]
    for student in students_of(plan_pairs(config, depths, options.target_sparsities)):
        path = folder / RAW_FOLDER / f"{student.name}.json"
        settings = options.settings(
            TEACHER_SETTINGS if student.target_sparsity is None else (*CALIBRATION_SETTINGS, "seed")
        )
        if is_finished(path, settings):
            logger.warning(f"{path} exists; skipped.")
            continue
        result = asdict(student) | {"settings": settings, "machine": describe_machine(comparison.teacher.device.type)}
        result |= _evidence_result(options, student) or comparison.run(student)
        write_json(path, result)
        logger.warning(json.dumps(without_keys(result, LONG_KEYS)))


def _evidence_result(options: TruncationArguments, student: TruncatedStudent) -> dict[str, Any] | None:
    """Returns the result of the same student in `evidence`, with its machine; `None` if there is none."""
    if options.evidence is None or student.num_layers is not None or student.target_sparsity is None:
        return None
    path = result_path(Path(options.evidence), Run("one_shot", student.target_sparsity, options.seed))
    if not is_finished(path, options.settings(CALIBRATION_SETTINGS)):
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    names = ("accuracy", "classes", "correct", "group_sizes")
    return (
        {name: found[name] for name in ("num_parameters", "macs", "machine")}
        | {"layers": len(found["cosine"]) - 1}
        | {task: {name: found[task][name] for name in names} for task in TASKS}
    )


def main() -> None:
    (options,) = HfArgumentParser(TruncationArguments).parse_args_into_dataclasses()
    folder = Path(options.output_dir)
    if not options.report_only:
        make_results(options, folder)
    write_report(folder, folder / CHOICES_FILE)


if __name__ == "__main__":
    main()
