"""The trainings of a pruning run: gates with the weights, then the weights of the compacted student."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..modeling.pretrained import PrunableModelMixin
from ..modeling.size import PARAMETERS, Measure
from ..runtime.checkpoints import common_checkpoint
from ..runtime.device_moves import on_device
from ..runtime.files import is_whole, remove
from ..runtime.trackers import tracked_stage
from ..runtime.training_plan import TrainingPlan
from .arguments import PruningTrainingArguments
from .constraint import Lagrangian
from .distillation import Distillation
from .fidelity import Fidelity, incomparable_reason, measure_fidelity
from .frozen_convolutions import are_equal, convolutions, copied, freezes_feature_encoder
from .held_out_similarity import HeldOutSimilarity
from .objective import PruningObjective
from .objective_arguments import ObjectiveArguments
from .stage_files import load_student_after, save_student
from .student import Student
from .targets import Target, target_text
from .trainer import PruningTrainer
from .training_data import TrainingData


logger = logging.get_logger(__name__)

# Numbers of the stages in the history. They are also added to the seed, so that each stage has its own order of clips.
GATE_STAGE, FINAL_STAGE = 1, 2
# Name of the first stage's folder.
GATE_STAGE_NAME = "stage_1"


def final_stage_name(target: Target) -> str:
    """Returns the name of the second stage's folder and file for the student of a target."""
    return f"stage_2_{target_text(target)}".replace(" ", "_")


@dataclass(frozen=True)
class LearnedGates:
    """A student with gates at the step at which the expected sparsity reached a target, as a file.

    Attributes:
        target: Target in the measure of the training, between 0 and 1.
        path: File with its weights, gates and history.
    """

    target: float
    path: Path

    def load(self, student: Student) -> Student:
        """Returns the student with the learned gates.

        Args:
            student: Student before the gates were trained; it is not changed.
        """
        return load_student_after(self.path, student)


class TrainingStages:
    """Trains and evaluates students of one run. Each stage takes a student and returns what it has become.

    The result of each stage and the Trainer's checkpoints are kept in the run's folder: after an interruption, the same
    calls continue where the run was. All processes must call the stages, and see the same folder.

    Args:
        model: Prunable model before the first stage; with gates if gates are to be trained, with a head for labels.
        teacher: Base model to distill from; `None` for an objective without distillation.
        args: Training arguments; `output_dir` is the run's folder.
        objective: Options of the objective.
        data: Training and held-out clips.
        plan: Plan with the names of the stages, which announces them and estimates their time; `None` for neither.

    Attributes:
        initial_student: Student before the first stage.
        has_projections: Whether hidden states are compared behind learned projections.

    Raises:
        ValueError: If the processes have different clips, weights with gates are to be frozen, or objective and teacher
            do not fit.
    """

    def __init__(
        self,
        model: PrunableModelMixin,
        teacher: PrunableModelMixin | None,
        args: PruningTrainingArguments,
        objective: ObjectiveArguments,
        data: TrainingData,
        plan: TrainingPlan | None = None,
    ):
        if objective.has_distillation != (teacher is not None):
            raise ValueError(
                f"`objective` is {objective.objective!r}, and there is {'no' if teacher is None else 'a'} teacher. Give a "
                "teacher with the objectives 'distillation' and 'both', and none with 'task'."
            )
        self.teacher, self.args, self.objective, self.data = teacher, args, objective, data
        self.plan = plan
        self.folder = Path(args.output_dir)
        # A copy, because mixed precision converts the teacher.
        self._teachers_convolutions = {} if teacher is None else copied(convolutions(teacher))
        has_teachers_convolutions = are_equal(convolutions(model), self._teachers_convolutions)
        self.freezes_feature_encoder = freezes_feature_encoder(model, args, has_teachers_convolutions)
        self.shares_features = self.freezes_feature_encoder and has_teachers_convolutions
        distillation = self._distillation(model.config, self.shares_features)
        self.initial_student = Student(model, {} if distillation is None else distillation.state_dict())
        self.has_projections = distillation is not None and distillation.has_projections
        if args.evaluates and not len(data.held_out_clips):
            raise ValueError(
                "`eval_steps` or `eval_strategy` is given, and there are no held-out clips to evaluate on. Hold some out, or "
                "leave the option out."
            )
        if args.world_size > 1:
            data.check_ranks_agree()

    def learn_gates(
        self,
        student: Student,
        targets: Sequence[float],
        measure: Measure = PARAMETERS,
        start_: Callable[[PrunableModelMixin], None] | None = None,
    ) -> list[LearnedGates]:
        """The first stage: trains gates and weights while the target of the constraint rises.

        Args:
            student: Student with gates.
            targets: Targets between 0 and 1, in ascending order. At the last one, training goes on to its last step.
            measure: Measure of the targets.
            start_: Function that gives a copy of the student's model its initial values, in place. It is not called when
                all gates have been learned before. `None` to start from the student as it is.

        Returns:
            The learned gates at each target.
        """
        learned = [LearnedGates(target, self.folder / f"gates_{target:g}.safetensors") for target in targets]

        def save(trainer: PruningTrainer, target_idx: int) -> None:
            save_student(trainer, learned[target_idx].path, GATE_STAGE)

        if not self._have_all(learned):
            if start_ is not None:
                student = replace(student, model=copy.deepcopy(student.model))
                start_(student.model)
            objective = self._objective(student, Lagrangian(), measure)
            trainer = self._train(GATE_STAGE_NAME, GATE_STAGE, objective, self.args, targets=targets, on_target=save)
            not_reached = [target_idx for target_idx, gates in enumerate(learned[:-1]) if not is_whole(gates.path)]
            # No process may write a file before all have looked for it.
            trainer.accelerator.wait_for_everyone()
            for target_idx in not_reached:
                logger.warning(
                    f"The sparsity had not come to {targets[target_idx]} when the {self.args.max_steps} steps were over. "
                    "Its model is made from the gates as they ended. Raise `max_steps` or `gate_learning_rate`."
                )
                save(trainer, target_idx)
            save(trainer, len(targets) - 1)
        return learned

    def _have_all(self, learned: Sequence[LearnedGates]) -> bool:
        """Returns whether all gates have been learned before, and their files are whole.

        Checkpoints after a target do not have the gates at that target. If its file is damaged, they are deleted, and the
        first stage begins anew.
        """
        are_whole = [is_whole(gates.path) for gates in learned]
        is_damaged = [gates.path.exists() and not whole for gates, whole in zip(learned, are_whole, strict=True)]
        if any(is_damaged[:-1]) and self.args.process_index == 0:
            logger.warning("The gates are trained anew.")
            remove(self.folder / GATE_STAGE_NAME)
        return all(are_whole)

    def train_student(self, student: Student, name: str = "stage_2") -> Student:
        """The second stage: trains the weights of a student without gates for `final_steps` steps.

        Args:
            student: Student without gates.
            name: Name of the stage's folder and file, different for each student of a run.
        """
        path = self.folder / f"{name}.safetensors"
        if not is_whole(path):
            trainer = self._train(name, FINAL_STAGE, self._objective(student), self.args.for_final_stage())
            save_student(trainer, path, FINAL_STAGE)
        return load_student_after(path, student)

    def held_out_loss(self, student: Student) -> float:
        """Returns the student's mean loss on the held-out clips, without the constraint.

        Args:
            student: Student with or without gates; gates have their deterministic values.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        args = copy.copy(self.args)
        # A tracker would begin a run for this one value.
        args.report_to = []
        loss = self._trainer(self._objective(student), args).evaluate()["eval_loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss on held-out audio is {loss}: the teacher's or the student's weights hold values that are not "
                "finite, or overflow on this audio. Check the checkpoints with a clip of your own."
            )
        return loss

    def held_out_batches(self) -> DataLoader:
        """Returns all held-out clips in the crops of `held_out_loss`, for this process alone."""
        return DataLoader(
            self.data.for_evaluation(),
            batch_size=self.args.eval_batch_size,
            collate_fn=self.data.collator,
            num_workers=self.args.dataloader_num_workers,
        )

    def fidelity(self, model: PrunableModelMixin, reference: PrunableModelMixin) -> Fidelity | None:
        """Compares hidden states on the held-out clips, in the crops of `held_out_loss`, on the device of the run.

        It is no collective operation: the main process may call it alone.

        Args:
            model: Student without gates, or its base model.
            reference: Teacher or dense model in float32.

        Returns:
            The agreement; `None`, with a warning, if the hidden states of the two models cannot be compared.
        """
        if not _can_compare(model, reference):
            return None
        with on_device([model, reference], self.args.device):
            return measure_fidelity(model, reference, self.held_out_batches())

    def _train(
        self,
        name: str,
        stage: int,
        objective: PruningObjective,
        args: PruningTrainingArguments,
        **trainer_options: Any,
    ) -> PruningTrainer:
        """Trains an objective, from the last checkpoint in the stage's folder if there is one."""
        args = args.in_folder(self.folder / name)
        checkpoint = common_checkpoint(args)
        # The log of a checkpoint has the evaluation of the start already.
        args.eval_on_start = args.eval_on_start and checkpoint is None
        trainer = self._trainer(
            objective,
            args,
            train_dataset=self.data.for_training(args, args.seed + stage),
            held_out_similarity=self._held_out_similarity(objective.student) if args.evaluates else None,
            **trainer_options,
        )
        if self.plan is not None:
            trainer.add_callback(self.plan.callback(name))
        with tracked_stage(trainer, self.folder, name):
            trainer.train(resume_from_checkpoint=checkpoint)
        return trainer

    def _held_out_similarity(self, student: PrunableModelMixin) -> HeldOutSimilarity | None:
        """Returns the measure of a training's evaluations; `None` without a teacher or if it cannot be compared."""
        if self.teacher is None or not _can_compare(student, self.teacher):
            return None
        return HeldOutSimilarity(self.teacher, self.held_out_batches())

    def _trainer(
        self, objective: PruningObjective, args: PruningTrainingArguments, **trainer_options: Any
    ) -> PruningTrainer:
        return PruningTrainer(
            objective,
            # The trainer changes its arguments.
            copy.copy(args),
            self.data.sampling_rate,
            eval_dataset=self.data.for_evaluation(),
            data_collator=self.data.collator,
            **trainer_options,
        )

    def _distillation(self, student_config: PreTrainedConfig, shares_features: bool) -> Distillation | None:
        if self.teacher is None:
            return None
        return Distillation(
            self.teacher,
            student_config,
            self.objective.distillation_layers,
            self.objective.distillation_form,
            self.objective.distillation_projections,
            shares_features,
        )

    def _objective(
        self, student: Student, lagrangian: Lagrangian | None = None, measure: Measure = PARAMETERS
    ) -> PruningObjective:
        """Builds the objective on copies of model and projections, because strategies such as FSDP change them in place."""
        # A method without gates may have pruned the convolutions, which then have something to learn.
        is_unchanged = are_equal(convolutions(student.model), self._teachers_convolutions)
        distillation = self._distillation(student.model.config, self.shares_features and is_unchanged)
        if distillation is not None:
            distillation.load_state_dict(student.projections)
        model = copy.deepcopy(student.model)
        if self.freezes_feature_encoder and (is_unchanged or self.args.freeze_feature_encoder):
            # What `freeze_feature_encoder` of the models does, which HuBERT's base model lacks.
            model.base_model.feature_extractor._freeze_parameters()
        task_weight = self.objective.task_weight if self.objective.has_task else 0.0
        return PruningObjective(model, distillation, lagrangian, task_weight, measure)


def _can_compare(model: PrunableModelMixin, reference: PrunableModelMixin) -> bool:
    """Returns whether hidden states of two models can be compared one by one; warns if they cannot."""
    reason = incomparable_reason(model.config, reference.config)
    if reason is not None:
        logger.warning(f"The hidden states are not compared one by one. {reason}")
    return reason is None
