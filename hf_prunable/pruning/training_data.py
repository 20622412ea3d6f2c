"""Clips of a pruning run, and the batches that student and teacher read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import Wav2Vec2FeatureExtractor

from ..data.batches import CropCollator, LabelledCollator
from ..data.clip_identity import identify_clips
from ..data.crops import CropReader
from ..data.labels import LabelEncoding
from ..data.shuffled_clips import LengthGrouping, ShuffledClips
from ..data.streaming import SpeechStream, StreamedClips
from ..runtime.digests import PREFIX, json_digest
from .arguments import PruningTrainingArguments


class TrainingData:
    """Training and held-out clips, with or without labels.

    Args:
        train_clips: Data set with columns `audio` and `seconds`, and with labels their column; or a stream, which has no
            labels.
        held_out_clips: Data set with the same columns, for `TrainingStages.held_out_loss`.
        feature_extractor: Feature extractor of the checkpoint.
        crop_seconds: Length in seconds of the crops of clips without labels, above 0.
        label_encoding: Column and encoding of the labels; `None` for clips without labels.
        shortest_crop_seconds: Length in seconds of the shortest crops that are trained on, above 0 and at most
            `crop_seconds`: each micro-batch has a random length between the two. `None` for crops of one length.
        min_seconds: Length in seconds below which a decoded clip is replaced by the next one.

    Raises:
        ValueError: If `crop_seconds` is not above 0.
    """

    def __init__(  # noqa: PLR0913 - keywords that do not depend on each other
        self,
        train_clips: Dataset | SpeechStream,
        held_out_clips: Dataset,
        feature_extractor: Wav2Vec2FeatureExtractor,
        crop_seconds: float,
        label_encoding: LabelEncoding | None = None,
        shortest_crop_seconds: float | None = None,
        min_seconds: float = 0.0,
    ):
        self.train_clips, self.held_out_clips = train_clips, held_out_clips
        self.feature_extractor = feature_extractor
        self.sampling_rate: int = feature_extractor.sampling_rate
        self.label_encoding = label_encoding
        self.collator: CropCollator | LabelledCollator
        if label_encoding is None:
            self.collator = CropCollator(feature_extractor, crop_seconds)
            self.max_seconds = crop_seconds
        else:
            self.collator = LabelledCollator(feature_extractor, label_encoding.encode)
            self.max_seconds = float("inf")
        self.reader = CropReader(self.sampling_rate, self.max_seconds, min_seconds)
        shortest_crop = 1.0 if shortest_crop_seconds is None else shortest_crop_seconds / crop_seconds
        self.training_reader = replace(self.reader, shortest_crop=shortest_crop)

    def for_training(self, args: PruningTrainingArguments, seed: int) -> ShuffledClips | StreamedClips:
        """Returns the clips of one stage in random order.

        Args:
            args: Training arguments of the stage.
            seed: Random seed of order and crops, 0 or more.
        """
        if isinstance(self.train_clips, SpeechStream):
            return StreamedClips(
                self.train_clips,
                reader=self.training_reader,
                batch_size=args.train_batch_size,
                seed=seed,
                rank=args.process_index,
                num_ranks=args.world_size,
            )
        return self._shuffled(
            self.train_clips,
            reader=self.training_reader,
            num_samples=args.max_steps * args.train_batch_size * args.micro_batches_per_step,
            seed=seed,
            length_grouping=LengthGrouping(args.train_batch_size, self.max_seconds),
        )

    def for_evaluation(self) -> ShuffledClips:
        """Returns each held-out clip once, always with the same crop."""
        return self._shuffled(self.held_out_clips, reader=self.reader, num_samples=len(self.held_out_clips))

    def check_ranks_agree(self) -> None:
        """Checks that all processes have the same clips; all of them must call it.

        Raises:
            ValueError: If they have not.
        """
        whole = {} if isinstance(self.train_clips, SpeechStream) else {"training": self.train_clips}
        for purpose, clips in {**whole, "evaluation": self.held_out_clips}.items():
            found = gather_object([(len(clips), json_digest(identify_clips(clips)).removeprefix(PREFIX))])
            if len(set(found)) > 1:
                seen = ", ".join(f"{count} clips ({digest[:8]})" for count, digest in found)
                raise ValueError(
                    f"The processes see different audio for {purpose}: {seen}, in the order of their ranks. Give all of "
                    "them the same data set, with the same files."
                )

    def _shuffled(self, clips: Dataset, **options: Any) -> ShuffledClips:
        label_column = None if self.label_encoding is None else self.label_encoding.label_column
        return ShuffledClips(clips, label_column=label_column, **options)
