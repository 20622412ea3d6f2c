"""From clips to batches: the order and the crops of training, a function of the seed alone, and what models read."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers.utils import logging

from .audio import AudioError, decode_audio, undecoded_audio


logger = logging.get_logger(__name__)

# Micro-batches whose clips are sorted by length together: enough that lengths in a batch are alike, few enough that the
# order stays random.
BATCHES_PER_BUCKET = 50


class RandomCrops(torch.utils.data.Dataset):
    """Clips in shuffled order with a random place to crop, each a function of (seed, index) alone.

    No process's random state takes part, which is what makes several ranks, workers and a resumed run agree. Read it in
    order (a sequential sampler): it is shuffled already, anew for each pass over the clips.

    Args:
        dataset: With an `audio` column, and `seconds` for `batch_size`.
        num_samples: The length; more than there are clips means several passes.
        sampling_rate: The rate of the waveforms, in Hz.
        seed: 0 or more.
        label_column: Passed on with each clip, where there is one.
        batch_size: Clips of a micro-batch, for batches of clips of like length; the order of the batches is random.
        longest_seconds: Lengths above it are alike, because crops are no longer.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        num_samples: int,
        sampling_rate: int,
        seed: int = 0,
        label_column: str | None = None,
        batch_size: int | None = None,
        longest_seconds: float = float("inf"),
    ):
        if len(dataset) == 0:
            raise ValueError("There are no clips to crop: the data set is empty.")
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or more.")
        self.clips = undecoded_audio(dataset)
        self.num_samples = num_samples
        self.sampling_rate = sampling_rate
        self.seed = seed
        self.label_column = label_column
        self.labels = None if label_column is None else dataset.select_columns(label_column).with_format(None)
        self.batch_size = batch_size
        self._lengths = np.minimum(dataset["seconds"][:], longest_seconds) if batch_size else None
        self._epoch: int | None = None
        self._order: np.ndarray | None = None

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> dict:
        """One clip.

        Returns:
            `waveform`, the whole clip, of shape (samples,), float32; `crop_position` in [0, 1), from the earliest to the
            latest crop; `label`, where there is a column of labels.

        Raises:
            AudioError: If not one of the clips can be decoded.
        """
        index = operator.index(index)
        if not 0 <= index < self.num_samples:
            raise IndexError(f"index is {index}; it must be 0 to {self.num_samples - 1}.")
        epoch, place = divmod(index, len(self.clips))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._order_of(epoch)
        for offset in range(len(self.clips)):
            clip = int(self._order[(place + offset) % len(self.clips)])
            try:
                waveform = decode_audio(self.clips[clip]["audio"], self.sampling_rate)
            except AudioError as error:
                logger.warning(f"Taking the next clip instead: {error}")
                continue
            item = {"waveform": waveform, "crop_position": float(np.random.default_rng((self.seed, index)).random())}
            return item if self.labels is None else {**item, "label": self.labels[clip][self.label_column]}
        raise AudioError(f"Not one of the {len(self.clips)} clips can be decoded.")

    def _order_of(self, epoch: int) -> np.ndarray:
        # The 1 keeps this stream apart from the crops' own.
        generator = np.random.default_rng((self.seed, epoch, 1))
        order = generator.permutation(len(self.clips))
        if self._lengths is None:
            return order
        bucket_size = BATCHES_PER_BUCKET * self.batch_size
        order = np.concatenate(
            [
                bucket[np.argsort(self._lengths[bucket], kind="stable")]
                for bucket in np.split(order, range(bucket_size, len(order), bucket_size))
            ]
        )
        # A pass over the clips may begin and end within a batch.
        begun = min(-epoch * len(order) % self.batch_size, len(order))
        num_batches = (len(order) - begun) // self.batch_size
        first, whole, rest = np.split(order, [begun, begun + num_batches * self.batch_size])
        batches = whole.reshape(num_batches, self.batch_size)[generator.permutation(num_batches)]
        return np.concatenate([first, batches.flatten(), rest])


@dataclasses.dataclass
class CropCollator:
    """Cuts the clips of one micro-batch to one common length and passes them through the feature extractor.

    Nothing is padded: the base models' group norm runs over time, padding included.

    Args:
        feature_extractor: One that turns waveforms into `input_values`; its own settings, such as `do_normalize`, are
            applied to each crop.
        crop_seconds: The length of the crops; the shortest clip of a batch may make it shorter.
    """

    feature_extractor: object
    crop_seconds: float

    def __post_init__(self):
        if self.crop_seconds <= 0:
            raise ValueError(f"crop_seconds is {self.crop_seconds}; it must be above 0.")
        if "input_values" not in self.feature_extractor.model_input_names:
            raise ValueError(
                f"{type(self.feature_extractor).__name__} gives {self.feature_extractor.model_input_names}, not "
                "input_values: use the feature extractor of a WavLM, HuBERT or wav2vec 2.0 model."
            )

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor]:
        """One batch.

        Args:
            items: What `RandomCrops` gives.

        Returns:
            `input_values` of shape (batch, samples), float32.
        """
        sampling_rate = self.feature_extractor.sampling_rate
        length = min(round(self.crop_seconds * sampling_rate), *(len(item["waveform"]) for item in items))
        crops = []
        for item in items:
            start = round(item["crop_position"] * (len(item["waveform"]) - length))
            crops.append(item["waveform"][start : start + length])
        features = self.feature_extractor(
            crops, sampling_rate=sampling_rate, padding=False, return_attention_mask=False, return_tensors="pt"
        )
        return {"input_values": features["input_values"]}


class LabelledClips(torch.utils.data.Dataset):
    """Whole clips with their labels in the order of the data set, each decoded when it is read.

    With transformers' Trainer, set `remove_unused_columns=False`: these are no inputs of a model before `LabelledCollator`.

    Args:
        dataset: With an `audio` column, and clips that can all be decoded.
        sampling_rate: The rate of the waveforms, in Hz.
        label_column: Of the labels.
    """

    def __init__(self, dataset: Dataset, *, sampling_rate: int, label_column: str = "label"):
        self.clips = undecoded_audio(dataset)
        self.labels = dataset.with_format(None)[label_column][:]
        self.sampling_rate = sampling_rate

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        """One clip.

        Returns:
            `waveform` of shape (samples,), float32, and `label`.

        Raises:
            AudioError: If the clip cannot be decoded.
        """
        return {
            "waveform": decode_audio(self.clips[index]["audio"], self.sampling_rate),
            "label": self.labels[index],
        }


@dataclasses.dataclass
class LabelledCollator:
    """Pads whole clips to one length and encodes their labels.

    Padding is zeros after the feature extractor's normalisation, which reads the clip alone. The group norm of the base
    models runs over time, padding included, so that a clip's output depends on the length it is padded to. With
    `seconds`, that length is the same in all batches, and the output is the same in whatever batch.

    Args:
        feature_extractor: One that turns waveforms into `input_values`.
        encode: Makes the model's `labels` from those of the clips.
        seconds: The length of every batch. Longer clips lose their end, and the feature extractor's own
            `return_attention_mask` decides whether there is a mask: models that were trained without one read padding as
            silence. By default, the length of the longest clip of a micro-batch, and always a mask.
    """

    feature_extractor: Any
    encode: Callable[[Sequence[Any]], torch.Tensor]
    seconds: float | None = None

    def __post_init__(self):
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}; it must be above 0.")

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor]:
        """One batch.

        Args:
            items: What `RandomCrops` gives, with labels, or `LabelledClips`.

        Returns:
            `input_values` and, where there is one, `attention_mask`, of shape (batch, samples); and `labels`.
        """
        sampling_rate = self.feature_extractor.sampling_rate
        length: dict[str, Any] = {"padding": True}
        if self.seconds is not None:
            samples = round(self.seconds * sampling_rate)
            length = {"padding": "max_length", "max_length": samples, "truncation": True}
        features = self.feature_extractor(
            [item["waveform"] for item in items],
            sampling_rate=sampling_rate,
            # Without it, padding would take part in the normalisation.
            return_attention_mask=True,
            return_tensors="pt",
            **length,
        )
        batch = {"input_values": features["input_values"], "labels": self.encode([item["label"] for item in items])}
        if self.seconds is None or self.feature_extractor.return_attention_mask:
            batch["attention_mask"] = features["attention_mask"]
        return batch
