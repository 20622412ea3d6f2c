"""One pruning run: a student, its teacher, the audio, and the stages between a dense and a small model."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from safetensors import safe_open
from transformers import PreTrainedModel

from .audio import audio_name
from .batches import CropCollator, RandomCrops
from .checkpoints import last_whole_checkpoint
from .compaction import compact
from .distillation import Distillation
from .files import save_tensors_atomically
from .sparsity import Lagrangian
from .training import PruningObjective, PruningTrainer, PruningTrainingArguments


class PruningRun:
    """Distils a student, learns its gates, compacts it and trains on.

    What a stage ends with is kept in the run's folder, and so are the Trainer's checkpoints: a run that was killed goes
    on where it was when the same is done again. All processes need to see the same folder.

    Args:
        student: A prunable base model, with gates for `learn_gates`.
        teacher: A base model.
        args: Of training; `output_dir` is the run's folder.
        train_clips: With an `audio` column.
        held_out_clips: Likewise, for `held_out_loss`.
        feature_extractor: Of the checkpoint.
        crop_seconds: Length of the crops that are trained on.
        layers: Student layers to distill; see `Distillation`.

    Raises:
        ValueError: If the processes were given different clips.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        args: PruningTrainingArguments,
        *,
        train_clips: Dataset,
        held_out_clips: Dataset,
        feature_extractor: Any,
        crop_seconds: float,
        layers: Sequence[int] | None = None,
    ):
        self.student, self.teacher = student, teacher
        self.args = args
        self.folder = Path(args.output_dir)
        self.train_clips, self.held_out_clips = train_clips, held_out_clips
        self.sampling_rate = feature_extractor.sampling_rate
        self.collator = CropCollator(feature_extractor, crop_seconds)
        self.layers = layers
        self.projections = Distillation(teacher, student.config, layers).state_dict()
        self.history: list[dict[str, Any]] = []
        if args.world_size > 1:
            _check_ranks_agree({"training": train_clips, "evaluation": held_out_clips})

    def learn_gates(self, target_sparsity: float) -> None:
        """The first stage: gates and weights, while the sparsity asked for rises to the target."""
        self._train(1, self.args, Lagrangian(), target_sparsity)

    def compact(self, target_sparsity: float) -> None:
        """Replaces the student by the small model at the target."""
        self.student = compact(self.student, target_sparsity)

    def train_student(self) -> None:
        """The second stage: the weights of the small model."""
        self._train(2, self.args.of_final_stage())

    def held_out_loss(self) -> float:
        """The distillation loss of the student on the held-out clips.

        Raises:
            FloatingPointError: If it is not finite.
        """
        loss = self._trainer(self.args, self._objective()).evaluate()["eval_loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The distillation loss on held-out audio is {loss}: the teacher's or the student's weights hold values "
                "that are not finite, or overflow on this audio. Check the checkpoints with a clip of your own."
            )
        return loss

    def _train(
        self,
        stage: int,
        args: PruningTrainingArguments,
        lagrangian: Lagrangian | None = None,
        target_sparsity: float = 0.0,
    ) -> None:
        result = self.folder / f"stage_{stage}.safetensors"
        if not result.exists():
            args = copy.copy(args)
            args.output_dir = str(self.folder / f"stage_{stage}")
            crops = RandomCrops(
                self.train_clips,
                num_samples=args.max_steps * args.train_batch_size * args.micro_batches_per_step,
                sampling_rate=self.sampling_rate,
                seed=args.seed + stage,
            )
            trainer = self._trainer(args, self._objective(lagrangian), target_sparsity, crops)
            trainer.train(resume_from_checkpoint=_common_checkpoint(args))
            self._save(trainer, result, stage)
        self._load(result)

    def _objective(self, lagrangian: Lagrangian | None = None) -> PruningObjective:
        """The objective on copies, because a strategy that shards a model does so in place."""
        distillation = Distillation(self.teacher, self.student.config, self.layers)
        distillation.load_state_dict(self.projections)
        return PruningObjective(copy.deepcopy(self.student), distillation, lagrangian)

    def _trainer(
        self,
        args: PruningTrainingArguments,
        objective: PruningObjective,
        target_sparsity: float = 0.0,
        crops: RandomCrops | None = None,
    ) -> PruningTrainer:
        return PruningTrainer(
            objective,
            copy.copy(args),
            target_sparsity,
            train_dataset=crops,
            eval_dataset=RandomCrops(
                self.held_out_clips, num_samples=len(self.held_out_clips), sampling_rate=self.sampling_rate
            ),
            data_collator=self.collator,
        )

    def _save(self, trainer: PruningTrainer, path: Path, stage: int) -> None:
        """Writes the end of a stage: student, projections and multipliers, with the log as metadata."""
        # All ranks take part where the weights are sharded; the first one has the result.
        tensors = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        history = [{"stage": stage, **entry} for entry in trainer.state.log_history if "loss" in entry]
        if trainer.is_world_process_zero():
            save_tensors_atomically(path, tensors, {"history": json.dumps(history)})
        trainer.accelerator.wait_for_everyone()

    def _load(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.history += json.loads(file.metadata()["history"])
        parts = {
            part: {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
            for part in ("student.", "distillation.")
        }
        self.student.load_state_dict(parts["student."])
        self.projections = parts["distillation."]


def _common_checkpoint(args: PruningTrainingArguments) -> str | None:
    """The checkpoint to go on from, as the first process finds it."""
    found = [None]
    if args.process_index == 0:
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


def clips_digest(clips: Dataset) -> str:
    """A hash of which clips these are: their file names and lengths, in order."""
    digest = hashlib.sha256(np.asarray(clips["seconds"][:], dtype=np.float64).tobytes())
    for audio in clips.select_columns("audio"):
        digest.update(Path(audio_name(audio["audio"])).name.encode())
    return digest.hexdigest()
