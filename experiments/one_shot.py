"""One-shot pruning, step by step: distillation loss on held-out audio, without a projection, against the size.

    python -m experiments one_shot --teacher wavlm-mini --dataset_name LibriSpeech/train-clean-100 --output_dir one_shot

More or less calibration audio: `--rows rounds --num_crops 3 12 50 0`, where 0 takes all. Other draws of it: `--seeds 1 2`.
Other audio: `--calibration_audio speech_commands_v0.02 --calibration_crop_seconds 1 --num_crops 800`; the held-out audio
stays that of `dataset_name`.
Each figure is written to the folder `raw` as soon as it exists, and the same command resumes an interrupted comparison. All
commands with one output folder report all results in it; `--report_only` needs no other option than `--output_dir`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoFeatureExtractor, HfArgumentParser
from transformers.utils import logging

from benchmarks.result_files import without_keys, write_json
from experiments.evidence_results import is_finished, load_results
from experiments.one_shot_report import write_report
from experiments.one_shot_results import Run, plan_groups, result_path
from experiments.one_shot_students import ROWS, TEACHER, check_rows, load_teacher
from experiments.split_audio import SplitAudio, clip_names, decode_clips, draw_crops, load_clips, model_inputs
from experiments.student_measurement import measure_student
from hf_prunable.reporting.measurement import describe_machine


logger = logging.get_logger("hf_prunable.benchmarks")


@dataclass(kw_only=True)
class OneShotArguments:
    """Teacher, students, sizes and audio."""

    output_dir: str = field(metadata={"help": "Output folder."})
    teacher: str | None = field(default=None, metadata={"help": "Folder or Hub id of the dense checkpoint."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "Folder of LibriSpeech, for calibration and held-out audio."}
    )
    rows: list[str] = field(
        default_factory=lambda: list(ROWS), metadata={"help": f"Rows to run, of {', '.join(ROWS)}; default: all."}
    )
    target_sparsities: list[float] = field(
        default_factory=lambda: [0.3, 0.5, 0.72, 0.85],
        metadata={"help": "Fractions of the dense encoder's parameters to remove, between 0 and 1."},
    )
    stock_target_sparsities: list[float] = field(
        default_factory=lambda: [0.2, 0.3, 0.4], metadata={"help": "The same for the row stock_shape."}
    )
    target_macs: list[float] = field(
        default_factory=lambda: [0.5],
        metadata={"help": "Fractions of multiply-accumulates to remove, for the rows macs and macs_channels."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [42], metadata={"help": "Random seeds of the draws of calibration audio."}
    )
    num_crops: list[int] = field(
        default_factory=lambda: [200], metadata={"help": "Numbers of calibration crops; 0 for all crops there are."}
    )
    crop_seconds: float = field(default=4.0, metadata={"help": "Length of held-out and calibration crops in seconds."})
    held_out_every: int = field(
        default=5, metadata={"help": "Number of file names, in sorted order, of which the first one is held out."}
    )
    calibration_audio: str | None = field(
        default=None,
        metadata={"help": "Folder of other audio for calibration; default: `dataset_name` without held-out clips."},
    )
    calibration_crop_seconds: float | None = field(
        default=None, metadata={"help": "Length of its crops in seconds; default: `crop_seconds`."}
    )
    remark: str | None = field(
        default=None, metadata={"help": "Remark on the measurement that is kept with each result."}
    )
    trained_results: str | None = field(
        default=None,
        metadata={
            "help": "File evidence.json of the experiment evidence, whose students table and picture show beside."
        },
    )
    report_only: bool = field(
        default=False, metadata={"help": "Write table and pictures of existing results without pruning."}
    )


class Measurement:
    """Teacher and audio of the experiment.

    Args:
        options: Options of the experiment.

    Raises:
        ValueError: If the teacher is pruned.
    """

    def __init__(self, options: OneShotArguments):
        assert options.teacher is not None and options.dataset_name is not None
        self.options, self.folder = options, options.teacher
        self.teacher = load_teacher(options.teacher)
        if not self.teacher.is_stock:
            raise ValueError(f"The teacher {options.teacher!r} is pruned. Give a dense checkpoint.")
        feature_extractor = AutoFeatureExtractor.from_pretrained(options.teacher)
        self.audio = SplitAudio(options.dataset_name, feature_extractor, options.crop_seconds, options.held_out_every)

    def calibration(self, num_crops: int, seed: int) -> torch.Tensor:
        """Draws calibration audio.

        Args:
            num_crops: Number of crops; 0 for all.
            seed: Random seed of the draw.

        Returns:
            Inputs of shape (crops, samples).
        """
        if self.options.calibration_audio is None:
            return self.audio.calibration(num_crops, seed)
        feature_extractor = self.audio.feature_extractor
        rate, seconds = feature_extractor.sampling_rate, calibration_crop_seconds(self.options)
        waveforms = decode_clips(load_clips(self.options.calibration_audio, rate, seconds), rate)
        return model_inputs(draw_crops(waveforms, num_crops, round(seconds * rate), seed), feature_extractor)


def calibration_crop_seconds(options: OneShotArguments) -> float:
    """Returns the length of a calibration crop in seconds.

    Args:
        options: Options of the experiment.
    """
    if options.calibration_audio is None or options.calibration_crop_seconds is None:
        return options.crop_seconds
    return options.calibration_crop_seconds


def make_results(options: OneShotArguments, folder: Path) -> None:
    """Makes the results that do not exist yet.

    Args:
        options: Options of the experiment.
        folder: Output folder.

    Raises:
        ValueError: If an option is missing or wrong, or a result exists that has other settings.
    """
    if missing := [name for name in ("teacher", "dataset_name") if not getattr(options, name)]:
        raise ValueError(f"{', '.join(f'`--{name}`' for name in missing)} must be given, except with `--report_only`.")
    check_rows(options.rows)
    settings = settings_of(options)
    audio = Path(options.calibration_audio or options.dataset_name or "").name
    targets = {row: sorted(set(options.target_sparsities)) for row in ROWS}
    targets[TEACHER] = [0.0]
    targets["macs"] = targets["macs_channels"] = sorted(set(options.target_macs))
    targets["stock_shape"] = sorted(set(options.stock_target_sparsities))
    groups = plan_groups(
        options.rows, targets, audio, options.num_crops, calibration_crop_seconds(options), options.seeds
    )
    waiting = []
    for group in groups:
        missing = [run for run in group if not is_finished(result_path(folder, run), settings | run.settings)]
        if missing:
            waiting.append((group, {run.name for run in missing}))
    if not waiting:
        return
    measurement = Measurement(options)
    for group, missing_names in waiting:
        make_group(measurement, group, missing_names, settings, folder)


def make_group(
    measurement: Measurement, group: Sequence[Run], missing: set[str], settings: Mapping[str, Any], folder: Path
) -> None:
    """Makes the students of one row and writes the missing results, each as soon as it exists.

    Args:
        measurement: Teacher and audio.
        group: Runs of one row on the same audio, in the order of their targets.
        missing: Names of the runs without a result.
        settings: Settings that all results depend on.
        folder: Output folder.
    """
    first = group[0]
    clips = torch.zeros(0, 0)
    if first.num_crops is not None and first.seed is not None:
        clips = measurement.calibration(first.num_crops, first.seed)
    seconds, start = 0.0, time.perf_counter()
    students = ROWS[first.row].make(measurement.folder, [run.target_sparsity for run in group], clips)
    for run, (_, student) in zip(group, students, strict=True):
        # Of rows in rounds, the time from the dense model on.
        seconds += time.perf_counter() - start
        if run.name in missing:
            result = {"row": run.row, "target_sparsity": run.target_sparsity, "audio": run.audio, "seed": run.seed}
            result |= {
                "num_crops": len(clips),
                "calibration_seconds": clips.numel() / measurement.audio.feature_extractor.sampling_rate,
                "pruning_seconds": seconds,
                **measure_student(student, measurement.teacher, measurement.audio.held_out_batches()),
                "shape": student.config.shape.to_dict(),
                "held_out": clip_names(measurement.audio.held_out_clips),
                "machine": describe_machine(measurement.teacher.device),
                "remark": measurement.options.remark,
                "settings": {**settings, **run.settings},
            }
            write_json(result_path(folder, run), result)
            logger.warning(
                f"{run.name}: {without_keys(result, ('shape', 'held_out', 'settings', 'cosine', 'relative_error'))}"
            )
        start = time.perf_counter()


def settings_of(options: OneShotArguments) -> dict[str, Any]:
    """Returns the settings that all results depend on. Folders are compared by name.

    Args:
        options: Options of the experiment.
    """
    names = {name: getattr(options, name) for name in ("teacher", "dataset_name")}
    settings = {name: path and Path(path).name for name, path in names.items()}
    return settings | {name: getattr(options, name) for name in ("crop_seconds", "held_out_every")}


def main() -> None:
    (options,) = HfArgumentParser(OneShotArguments).parse_args_into_dataclasses()
    folder = Path(options.output_dir)
    if not options.report_only:
        make_results(options, folder)
    write_report(load_results(folder), folder, options.trained_results)


if __name__ == "__main__":
    main()
