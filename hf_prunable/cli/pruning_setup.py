"""What the commands that prune have in common: audio, models and stages of a run, and the facts that identify it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Wav2Vec2FeatureExtractor, set_seed
from transformers.utils import logging

from ..data.arguments import SpeechArguments, leave_out_transcripts, load_speech
from ..data.clip_identity import identify_tokenizer
from ..data.labels import LabelEncoding, load_label_encoding
from ..modeling.auto import prunable_class
from ..modeling.identity import identify_model
from ..modeling.loading import load_complete, load_config, load_feature_extractor
from ..modeling.other_weights import describe_other_weights, read_other_weights
from ..pruning.arguments import GATES, PruningArguments, PruningTrainingArguments
from ..pruning.method import PruningMethod
from ..pruning.objective_arguments import ObjectiveArguments
from ..pruning.stage_plan import plan_stages
from ..pruning.stages import TrainingStages
from ..pruning.student import load_student
from ..pruning.training_data import TrainingData
from ..reporting.pruning_inputs import PruningInputs
from ..runtime.auto_classes import BASE_MODEL
from ..runtime.digests import tensors_digest
from ..runtime.library_versions import installed_versions
from .pruning_methods import calibration_of, steps_of_stages


logger = logging.get_logger(__name__)


class PruningSetup:
    """Audio and student of a run, from which the stages of a method are made.

    Args:
        options: Options for the checkpoint and the method.
        speech_options: Options for the audio.
        objective: Options for the losses and the labels.
        training: Training arguments; `output_dir` is the working folder.

    Attributes:
        model: Model to prune, in float32.
        original_config: Its configuration as stored.
        feature_extractor: Feature extractor of the checkpoint.
        speech: Training and held-out clips.
        labels: Encoding of the labels; `None` without labels.
        teacher_name: Folder or Hub id of the teacher; `None` without distillation.
        other_weights: Weights of the checkpoint that the model has no place for, by name; for the main process alone.

    Raises:
        ValueError: If the checkpoint is of another kind, or the audio cannot be used.
    """

    def __init__(
        self,
        options: PruningArguments,
        speech_options: SpeechArguments,
        objective: ObjectiveArguments,
        training: PruningTrainingArguments,
    ):
        self.options, self.speech_options, self.objective = options, speech_options, objective
        self.training = training
        name = options.model_name_or_path
        self.teacher_name = (options.teacher_name_or_path or name) if objective.has_distillation else None
        # Another kind of model is refused before anything but its configuration is read.
        prunable_class(load_config(name))
        self.feature_extractor: Wav2Vec2FeatureExtractor = load_feature_extractor(name)
        self.speech = load_speech(speech_options, self.feature_extractor.sampling_rate, training.seed)
        self.labels: LabelEncoding | None = None
        if objective.task is not None:
            self.labels = load_label_encoding(
                objective.task, name, self.speech.train_clips, objective.label_column, self.speech.held_out_clips
            )
        # The weights of a new head are random.
        set_seed(training.seed)
        head_options = {} if self.labels is None else self.labels.model_options
        self.model, self.original_config = load_student(name, auto_class=self.auto_class, **head_options)
        if self.labels is not None:
            self.speech = leave_out_transcripts(self.speech, self.labels, self._count_frames)
        # Before a method attaches gates; only the main process compares them.
        self._is_main_process = training.process_index == 0
        self._models: dict[str, Any] = {}
        if self._is_main_process:
            self._models["model"] = identify_model(self.model, self.feature_extractor)
        self.other_weights = self._read_other_weights() if self._is_main_process else {}

    @property
    def auto_class(self) -> str:
        """Name of the Auto class of the student's head."""
        return BASE_MODEL if self.labels is None else self.labels.auto_class

    def _count_frames(self, seconds: float) -> int:
        """Returns the number of frames that the model makes of a clip, behind its adapter if it has one."""
        num_samples = round(seconds * self.feature_extractor.sampling_rate)
        # A method of the stock classes.
        model: Any = self.model
        return int(model._get_feat_extract_output_lengths(torch.tensor(num_samples)))

    def _read_other_weights(self) -> dict[str, torch.Tensor]:
        """Reads the weights that the model has no place for, and names them in a warning."""
        weights = read_other_weights(self.options.model_name_or_path, self.model)
        if weights:
            logger.warning(describe_other_weights(weights, self.model, self.options.keep_other_weights))
        return weights

    def stages(self, method: PruningMethod, output_dir: Path) -> TrainingStages:
        """Prepares the student for a method, loads the teacher, and returns the stages of the run with their plan.

        Args:
            method: Pruning method.
            output_dir: Folder of the result, for the plan.

        Raises:
            ValueError: If model, teacher or audio do not fit the method.
        """
        method.prepare_(self.model)
        teacher = None if self.teacher_name is None else load_complete(self.teacher_name)
        if teacher is not None and self._is_main_process and self.teacher_name != self.options.model_name_or_path:
            self._models["teacher"] = identify_model(teacher)
        data = TrainingData(
            self.speech.train_clips,
            self.speech.held_out_clips,
            self.feature_extractor,
            self.objective.crop_seconds,
            self.labels,
            self.objective.shortest_crop_seconds,
            self.speech_options.min_seconds,
        )
        plan = plan_stages(method.targets, self.training, data, output_dir, method.first_stage(self.training))
        stages = TrainingStages(self.model, teacher, self.training, self.objective, data, plan)
        method.read_input(stages)
        return stages

    def identity(self, method: PruningMethod) -> dict[str, Any]:
        """Returns facts by which an interrupted run recognises what it reads; for the main process alone.

        Args:
            method: Pruning method that has read its input.
        """
        facts = self._models | self.speech.identity(None if self.labels is None else self.labels.label_column)
        if self.labels is not None and self.labels.tokenizer is not None:
            facts["tokenizer"] = identify_tokenizer(self.labels.tokenizer)
        if method.calibration is not None:
            waveforms = method.calibration.waveforms
            facts["calibration audio"] = {
                "crops": len(waveforms),
                "samples": tensors_digest({"waveforms": waveforms}),
            }
        return facts | {"versions": installed_versions()}

    def inputs(self, method: PruningMethod, stages: TrainingStages, command: str) -> PruningInputs:
        """Returns the inputs of the run for its reports.

        Args:
            method: Pruning method that has read its input.
            stages: Stages of the run.
            command: Command line that repeats the run.
        """
        return PruningInputs(
            method=self.options.method,
            command=command,
            model_name=self.options.model_name_or_path,
            family=self.model.config.stock_config_class.model_type,
            sampling_rate=self.feature_extractor.sampling_rate,
            dataset_name=self.speech_options.dataset_name,
            num_skipped=self.speech.num_skipped,
            teacher_name=self.teacher_name,
            objective=self.objective.objective,
            has_projections=stages.has_projections,
            units=self.options.prune_units,
            stock_shape=self.options.stock_shape,
            gate_start=self.options.gate_start if self.options.method == GATES else None,
            refit=self.options.refit,
            steps=steps_of_stages(self.options.method, self.training),
            seed=self.training.seed,
            calibration=calibration_of(method),
        )
