"""One pruning run: a student, its teacher, the audio, and the stages between a dense and a small model."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.batches import CropCollator, LabelledCollator
from ..data.labels import LabelEncoding
from ..data.shuffled_clips import LengthGrouping, ShuffledClips
from ..data.speech_dataset import clips_digest
from ..data.streaming import SpeechStream, StreamedClips
from ..modeling.size import PARAMETERS, Measure
from ..runtime.checkpoints import last_whole_checkpoint, remove_damaged_checkpoints
from ..runtime.files import save_tensors_atomically
from .compaction import compact
from .constraint import Lagrangian
from .distillation import Distillation
from .objective import ObjectiveArguments, PruningObjective
from .trainer import PruningTrainer
from .training_arguments import PruningTrainingArguments


logger = logging.get_logger(__name__)


class PruningRun:
    """Learns a student's gates, compacts it at one or several targets and trains on.

    What a stage ends with is kept in the run's folder, and so are the Trainer's checkpoints: a run that was killed goes
    on where it was when the same is done again. All processes need to see the same folder.

    Args:
        student: A prunable model, with gates for `learn_gates`; with a head for an objective with labels.
        teacher: A base model; `None` for an objective without distillation.
        args: Of training; `output_dir` is the run's folder.
        objective: What to learn from.
        train_clips: With columns `audio` and `seconds`; or a stream, for distillation.
        held_out_clips: Likewise, for `held_out_loss`.
        feature_extractor: Of the checkpoint.
        task: The labels, for an objective with them.
        measure: What targets are counted in.
        round_to: What widths are to be multiples of.

    Raises:
        ValueError: If the processes were given different clips, or gates are where weights are to be frozen.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel | None,
        args: PruningTrainingArguments,
        objective: ObjectiveArguments,
        *,
        train_clips: Dataset | SpeechStream,
        held_out_clips: Dataset,
        feature_extractor: Any,
        task: LabelEncoding | None = None,
        measure: Measure = PARAMETERS,
        round_to: int | None = None,
    ):
        self.student, self.teacher = student, teacher
        self.args, self.objective = args, objective
        self.folder = Path(args.output_dir)
        self.train_clips, self.held_out_clips = train_clips, held_out_clips
        self.sampling_rate = feature_extractor.sampling_rate
        self.task = task
        if task is not None:
            self.collator: Any = LabelledCollator(feature_extractor, task.encode)
        else:
            self.collator = CropCollator(feature_extractor, objective.crop_seconds)
        self.measure, self.round_to = measure, round_to
        has_teachers_convolutions = _has_convolutions_of(student, teacher)
        self.freezes_feature_encoder = _freezes_feature_encoder(student, args, has_teachers_convolutions)
        self.shares_features = self.freezes_feature_encoder and has_teachers_convolutions
        self.with_gates = student
        self._final_stage = "stage_2"
        self.history: list[dict[str, Any]] = []
        self.projections: dict[str, torch.Tensor] = {}
        if objective.has_distillation:
            self.projections = self._distillation().state_dict()
        if args.world_size > 1:
            whole = {} if isinstance(train_clips, SpeechStream) else {"training": train_clips}
            _check_ranks_agree({**whole, "evaluation": held_out_clips})

    def learn_gates(self, targets: Sequence[float]) -> None:
        """The first stage: gates and weights, while the sparsity asked for rises from target to target.

        Args:
            targets: In ascending order. What the student is when it reaches one is kept for `compact`; at the last one
                it trains on to the end of the steps.
        """

        def keep(trainer: PruningTrainer, number: int) -> None:
            self._save(trainer, self._gates_file(targets[number]), stage=1)

        end = self._gates_file(targets[-1])
        if not end.exists():
            trainer = self._train("stage_1", self.args, Lagrangian(), targets, keep)
            for number, target in enumerate(targets[:-1]):
                if not self._gates_file(target).exists():
                    logger.warning(
                        f"The sparsity had not come to {target} when the {self.args.max_steps} steps were over. Its model "
                        "is made from the gates as they ended. Raise `max_steps` or `gate_learning_rate`."
                    )
                    keep(trainer, number)
            keep(trainer, len(targets) - 1)
        self._load(end)

    def compact(self, target: float) -> None:
        """Replaces the student by the small model at a target, made from what `learn_gates` kept for it."""
        self.student, self.history = copy.deepcopy(self.with_gates), []
        self._load(self._gates_file(target))
        asked = {self.measure.option: target}
        self.student = compact(self.student, **asked, mac_seconds=self.measure.mac_seconds, round_to=self.round_to)
        self._final_stage = f"stage_2_{target:g}"

    def train_student(self) -> None:
        """The second stage: the weights of the small model."""
        end = self.folder / f"{self._final_stage}.safetensors"
        if not end.exists():
            self._save(self._train(self._final_stage, self.args.of_final_stage()), end, stage=2)
        self._load(end)

    def held_out_loss(self) -> float:
        """The student's loss on the held-out clips, without the constraint.

        Raises:
            FloatingPointError: If it is not finite.
        """
        loss = self._trainer(self.args, self._make_objective()).evaluate()["eval_loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss on held-out audio is {loss}: the teacher's or the student's weights hold values that are not "
                "finite, or overflow on this audio. Check the checkpoints with a clip of your own."
            )
        return loss

    def _gates_file(self, target: float) -> Path:
        return self.folder / f"gates_{target:g}.safetensors"

    def _train(
        self,
        stage: str,
        args: PruningTrainingArguments,
        lagrangian: Lagrangian | None = None,
        targets: Sequence[float] = (),
        on_target: Callable[[PruningTrainer, int], None] | None = None,
    ) -> PruningTrainer:
        args = copy.copy(args)
        args.output_dir = str(self.folder / stage)
        number_of_stage = 2 if lagrangian is None else 1
        clips = self._training_clips(args, args.seed + number_of_stage)
        objective = self._make_objective(lagrangian)
        trainer = self._trainer(args, objective, targets=targets, on_target=on_target, train_dataset=clips)
        trainer.train(resume_from_checkpoint=_common_checkpoint(args))
        return trainer

    def _training_clips(self, args: PruningTrainingArguments, seed: int) -> ShuffledClips | StreamedClips:
        if isinstance(self.train_clips, SpeechStream):
            return StreamedClips(
                self.train_clips,
                sampling_rate=self.sampling_rate,
                batch_size=args.train_batch_size,
                seed=seed,
                rank=args.process_index,
                num_ranks=args.world_size,
            )
        return self._clips(
            self.train_clips,
            num_samples=args.max_steps * args.train_batch_size * args.micro_batches_per_step,
            seed=seed,
            length_grouping=LengthGrouping(
                args.train_batch_size, float("inf") if self.task else self.objective.crop_seconds
            ),
        )

    def _clips(self, clips: Dataset, **options: Any) -> ShuffledClips:
        return ShuffledClips(
            clips,
            sampling_rate=self.sampling_rate,
            label_column=None if self.task is None else self.task.label_column,
            **options,
        )

    def _distillation(self) -> Distillation:
        return Distillation(
            self.teacher,
            self.student.config,
            self.objective.distillation_layers,
            self.objective.distillation_form,
            self.objective.share_projections,
            self.shares_features,
        )

    def _make_objective(self, lagrangian: Lagrangian | None = None) -> PruningObjective:
        """The objective on copies, because a strategy that shards a model does so in place."""
        distillation = None
        if self.objective.has_distillation:
            distillation = self._distillation()
            distillation.load_state_dict(self.projections)
        task_weight = self.objective.task_weight if self.objective.has_task else 0.0
        student = copy.deepcopy(self.student)
        if self.freezes_feature_encoder:
            # What `freeze_feature_encoder` of most models does; HuBERT's base model is without it.
            student.base_model.feature_extractor._freeze_parameters()
        return PruningObjective(student, distillation, lagrangian, task_weight, self.measure)

    def _trainer(self, args: PruningTrainingArguments, objective: PruningObjective, **options: Any) -> PruningTrainer:
        held_out = self._clips(self.held_out_clips, num_samples=len(self.held_out_clips))
        return PruningTrainer(
            objective, copy.copy(args), eval_dataset=held_out, data_collator=self.collator, **options
        )

    def _save(self, trainer: PruningTrainer, path: Path, stage: int) -> None:
        """Writes student, projections and multipliers, with the log as metadata."""
        # All processes take part where the weights are sharded; the first one has the result.
        tensors = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        history = [{"stage": stage, **entry} for entry in trainer.state.log_history if "loss" in entry]
        if trainer.is_world_process_zero():
            save_tensors_atomically(path, tensors, {"history": json.dumps(history)})
        trainer.accelerator.wait_for_everyone()

    def _load(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.history += json.loads(file.metadata()["history"])
        student, self.projections = (
            {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
            for part in ("student.", "distillation.")
        )
        self.student.load_state_dict(student)


def _freezes_feature_encoder(
    student: PreTrainedModel, args: PruningTrainingArguments, has_teachers_convolutions: bool
) -> bool:
    has_gates = any(name.endswith(".conv") for name, _ in student.named_gates())
    if args.freeze_feature_encoder is not None:
        if args.freeze_feature_encoder and has_gates:
            raise ValueError(
                "`freeze_feature_encoder` is given, and the convolutions have gates. Leave it out, or 'conv' of "
                "`prune_units`."
            )
        return args.freeze_feature_encoder
    # Convolutions that give what the teacher's give have nothing to learn from it.
    return not has_gates and has_teachers_convolutions


def _has_convolutions_of(student: PreTrainedModel, teacher: PreTrainedModel | None) -> bool:
    if teacher is None or student.dtype != teacher.dtype:
        return False
    own, wanted = (model.base_model.feature_extractor.state_dict() for model in (student, teacher))
    return own.keys() == wanted.keys() and all(
        torch.equal(tensor, wanted[name].to(tensor.device)) for name, tensor in own.items()
    )


def _common_checkpoint(args: PruningTrainingArguments) -> str | None:
    """The checkpoint to go on from, as the first process finds it."""
    found = [None]
    if args.process_index == 0:
        remove_damaged_checkpoints(Path(args.output_dir))
        checkpoint = last_whole_checkpoint(Path(args.output_dir))
        found = [checkpoint and str(checkpoint)]
    return broadcast_object_list(found)[0] if args.world_size > 1 else found[0]


def _check_ranks_agree(datasets: dict[str, Dataset]) -> None:
    for purpose, clips in datasets.items():
        found = gather_object([(len(clips), clips_digest(clips))])
        if len(set(found)) > 1:
            seen = ", ".join(f"{count} clips ({digest[:8]})" for count, digest in found)
            raise ValueError(
                f"The processes see different audio for {purpose}: {seen}, in the order of their ranks. Give all of them "
                "the same data set, with the same files."
            )
