"""Makes teachers of the other families, by distillation of all hidden states of a WavLM of the same size.

    python -m experiments family_teachers --teacher wavlm-mini --dataset_name LibriSpeech/train-clean-100 \
        --speech_commands speech_commands_v0.02 --output_dir family_teachers --final_steps 2500

Training audio is that of `dataset_name` without the held-out clips of the experiments one_shot and evidence, and with
`--train_on_words` also the training split of Speech Commands, whose clips are then no longer unheard in the evaluation. Convolutions that equal the
teacher's are not trained, unless `--freeze_feature_encoder false` is given. Each model is written to a folder of its
family's name. The same command resumes an interrupted training, and existing models are not trained again. With
`--speech_commands`, words, speakers and k-means units are evaluated, beside the teacher's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import AutoFeatureExtractor, AutoModel, HfArgumentParser, set_seed
from transformers.utils import logging

from benchmarks.result_files import RAW_FOLDER, write_json
from experiments.compared_students import TEACHER
from experiments.encoder_evaluation import EncoderEvaluation
from experiments.evidence_results import COMMON_SETTINGS, FINAL_SETTINGS, is_finished, load_results
from experiments.family_report import write_report
from experiments.family_starts import FAMILIES, STARTS, make_start
from experiments.one_shot_students import load_teacher
from experiments.split_audio import SplitAudio, load_clips
from experiments.student_measurement import measure_student
from hf_prunable.modeling.loading import load_complete
from hf_prunable.modeling.pretrained import PrunableModelMixin
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.objective_arguments import ObjectiveArguments
from hf_prunable.pruning.stages import TrainingStages
from hf_prunable.pruning.student import load_student, restore_noise_
from hf_prunable.pruning.training_data import TrainingData
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.runtime.settings import remember_settings


logger = logging.get_logger("hf_prunable.benchmarks")

TRAINING_FOLDER = "training"
# Defaults of this experiment. The gate stage is not run.
TRAINING = {
    "max_steps": 1,
    "final_steps": 2500,
    "final_learning_rate": 1e-3,
    "final_warmup_steps": 0.1,
    "per_device_train_batch_size": 4,
}


@dataclass(kw_only=True)
class FamilyArguments:
    """Teacher, families and audio.

    Raises:
        ValueError: If a family or a start does not exist, or words to train on are not given.
    """

    teacher: str = field(metadata={"help": "Folder or Hub id of the dense checkpoint to distill."})
    dataset_name: str = field(metadata={"help": "Folder of LibriSpeech, for training and held-out audio."})
    families: list[str] = field(
        default_factory=lambda: list(FAMILIES), metadata={"help": f"Models to make, of {', '.join(FAMILIES)}."}
    )
    start: str | None = field(
        default=None, metadata={"help": f"Initial weights, of {', '.join(STARTS)}; default: chosen for each family."}
    )
    speech_commands: str | None = field(
        default=None, metadata={"help": "Folder of the extracted Speech Commands archive, for the evaluation."}
    )
    train_on_words: bool = field(
        default=False, metadata={"help": "Train on the training split of `speech_commands` as well."}
    )
    train_crop_seconds: float = field(default=2.0, metadata={"help": "Length of the training crops in seconds."})
    distillation_layers: list[int] | None = field(
        default=None, metadata={"help": "Layers to distill, from 0 for the feature projection; default: all."}
    )
    held_out_crop_seconds: float = field(
        default=4.0, metadata={"help": "Length of held-out crops in seconds; shorter clips are left out."}
    )
    held_out_every: int = field(
        default=5, metadata={"help": "Number of file names, in sorted order, of which the first one is held out."}
    )

    def __post_init__(self):
        for names, known, what in ((self.families, FAMILIES, "family"), ([self.start or "new"], STARTS, "start")):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(
                    f"There is no {what} {', '.join(map(repr, unknown))}; choose from {', '.join(known)}."
                )
        if self.train_on_words and self.speech_commands is None:
            raise ValueError("`train_on_words` needs the folder of Speech Commands. Give `speech_commands`.")


def training_clips(audio: SplitAudio, options: FamilyArguments) -> Dataset:
    """Collects the clips to train on.

    A clip stands among them once for each whole crop in it, so that all seconds are equally frequent.

    Args:
        audio: Audio of which a part is held out.
        options: Folder of words and length of crops.

    Returns:
        Training clips with columns `audio` and `seconds`.
    """
    crop_seconds, sources = options.train_crop_seconds, [audio.train_clips.select_columns(["audio", "seconds"])]
    if options.train_on_words and options.speech_commands is not None:
        words = load_clips(options.speech_commands, audio.feature_extractor.sampling_rate, crop_seconds)
        sources.append(words.select_columns(["audio", "seconds"]))
    clips = concatenate_datasets(sources)
    repeats = np.floor(np.asarray(clips["seconds"][:]) / crop_seconds).astype(int)
    return clips.select(np.repeat(np.arange(len(clips)), repeats))


class FamilyTeachers:
    """Trains models of several families and measures them against the teacher.

    Args:
        options: Options of the experiment.
        training: Training arguments; `output_dir` is the folder of the experiment.
    """

    def __init__(self, options: FamilyArguments, training: PruningTrainingArguments):
        self.options, self.training, self.folder = options, training, Path(training.output_dir)
        self.feature_extractor = AutoFeatureExtractor.from_pretrained(options.teacher)
        self.teacher = load_teacher(options.teacher)
        self.audio = SplitAudio(
            options.dataset_name, self.feature_extractor, options.held_out_crop_seconds, options.held_out_every
        )
        self.evaluation = None
        if options.speech_commands is not None:
            self.evaluation = EncoderEvaluation(
                self.teacher, self.feature_extractor, self.audio, options.speech_commands
            )

    def measure(self, model: PrunableModelMixin) -> dict[str, Any]:
        """Measures size and fidelity of a model, and evaluates it if there is Speech Commands.

        Args:
            model: Base model.
        """
        if self.evaluation is not None:
            return self.evaluation(model)
        return measure_student(model, self.teacher, self.audio.held_out_batches())

    def settings(self, name: str) -> dict[str, Any]:
        """Returns the settings that a model depends on. Folders are compared by name.

        Args:
            name: Name in `FAMILIES`, or `TEACHER`.
        """
        options = self.options
        # Words that are evaluated only change no model.
        names = ("teacher", "dataset_name", *(["speech_commands"] if options.train_on_words else []))
        settings: dict[str, Any] = {key: (path := getattr(options, key)) and Path(path).name for key in names}
        settings |= {key: getattr(options, key) for key in ("held_out_crop_seconds", "held_out_every")}
        if name == TEACHER:
            return settings
        depth = self.teacher.config.num_hidden_layers
        return (
            settings
            | {"start": options.start or FAMILIES[name].start, "train_on_words": options.train_on_words}
            | {"train_crop_seconds": options.train_crop_seconds}
            | {"distillation_layers": options.distillation_layers or list(range(depth + 1))}
            | {key: getattr(self.training, key) for key in (*COMMON_SETTINGS, *FINAL_SETTINGS)}
            | {"seed": self.training.seed + FAMILIES[name].seed}
        )

    def make(self, name: str) -> dict[str, Any]:
        """Trains a model of a family, saves it in the folder of its name, and measures it before and after.

        Args:
            name: Name in `FAMILIES`.

        Returns:
            Start with its fidelity, history of the training and what `measure` measures.
        """
        settings, working_folder = self.settings(name), self.folder / TRAINING_FOLDER / name
        remember_settings(working_folder, settings)
        start = make_start(
            FAMILIES[name], AutoModel.from_pretrained(self.options.teacher), settings["seed"], settings["start"]
        )
        start_folder = working_folder / "start"
        start.model.save_pretrained(start_folder)
        self.feature_extractor.save_pretrained(start_folder)
        model, config = load_student(start_folder)
        before = measure_student(model, self.teacher, self.audio.held_out_batches())
        args = self.training.in_folder(working_folder)
        args.seed = settings["seed"]
        set_seed(args.seed)
        crop_seconds = self.options.train_crop_seconds
        clips = training_clips(self.audio, self.options)
        objective = ObjectiveArguments(crop_seconds=crop_seconds, distillation_layers=settings["distillation_layers"])
        data = TrainingData(clips, self.audio.held_out_clips, self.feature_extractor, crop_seconds)
        stages = TrainingStages(model, self.teacher, args, objective, data)
        student = stages.train_student(stages.initial_student)
        restore_noise_(student.model, config)
        student.model.save_pretrained(self.folder / name)
        self.feature_extractor.save_pretrained(self.folder / name)
        return {
            "start": start.summary() | {name: before[name] for name in ("loss", "cosine")},
            "history": student.history,
            # The files are measured, as other experiments load them.
            **self.measure(load_complete(self.folder / name).eval()),
        }


def has_evaluation(path: Path) -> bool:
    """Checks whether a result holds words and speakers.

    Args:
        path: Result file.
    """
    return "words" in json.loads(path.read_text(encoding="utf-8"))


def make_results(options: FamilyArguments, training: PruningTrainingArguments, folder: Path) -> None:
    """Makes the models that do not exist yet, and measures the teacher.

    Args:
        options: Options of the experiment.
        training: Training arguments.
        folder: Output folder.

    Raises:
        ValueError: If a model exists that has other settings.
    """
    teachers = FamilyTeachers(options, training)
    for name in (TEACHER, *options.families):
        path, settings = folder / RAW_FOLDER / f"{name}.json", teachers.settings(name)
        if is_finished(path, settings) and (options.speech_commands is None or has_evaluation(path)):
            logger.warning(f"{path} exists; skipped.")
            continue
        result = teachers.measure(teachers.teacher) if name == TEACHER else teachers.make(name)
        write_json(path, {"row": name, "settings": settings, "machine": describe_machine(training.device), **result})


def main() -> None:
    parser = HfArgumentParser((FamilyArguments, PruningTrainingArguments))
    parser.set_defaults(**TRAINING)
    options, training = parser.parse_args_into_dataclasses()
    folder = Path(training.output_dir)
    make_results(options, training, folder)
    write_report(load_results(folder), folder)


if __name__ == "__main__":
    main()
