"""Model inputs from clips: crops without padding, and whole clips with labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import Wav2Vec2FeatureExtractor

from .audio import decode_audio, undecoded_audio
from .crops import crop_start


@dataclasses.dataclass
class CropCollator:
    """Crops the clips of one micro-batch to a common length and passes them through the feature extractor.

    Nothing is padded, because the group norm of base models runs over time and would include the padding.

    Attributes:
        feature_extractor: Feature extractor of the model, with `input_values` as its output. Its settings, such as
            `do_normalize`, apply to each crop.
        crop_seconds: Length of the longest crops in seconds, above 0. The `crop_fraction` of a micro-batch's first item
            says how long its crops are. If a clip of the micro-batch is shorter, all of its crops are as short.

    Raises:
        ValueError: If `crop_seconds` is not positive or the feature extractor does not return `input_values`.
    """

    feature_extractor: Wav2Vec2FeatureExtractor
    crop_seconds: float

    def __post_init__(self):
        if self.crop_seconds <= 0:
            raise ValueError(f"crop_seconds is {self.crop_seconds}; it must be above 0.")
        if "input_values" not in self.feature_extractor.model_input_names:
            raise ValueError(
                f"{type(self.feature_extractor).__name__} gives {self.feature_extractor.model_input_names}, not "
                "input_values: use the feature extractor of a WavLM, HuBERT or wav2vec 2.0 model."
            )

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Makes one batch.

        Args:
            items: Items of `ShuffledClips` or `StreamedClips`, read for crops of at least this length; or whole clips
                with `waveform`, `crop_position` and `crop_fraction`.

        Returns:
            `input_values` of shape (batch, samples), float32.
        """
        sampling_rate = self.feature_extractor.sampling_rate
        lengths = [item.get("num_samples", len(item["waveform"])) for item in items]
        seconds = self.crop_seconds * items[0]["crop_fraction"]
        length = min(max(1, round(seconds * sampling_rate)), *lengths)
        crops = []
        for item, num_samples in zip(items, lengths, strict=True):
            start = crop_start(item["crop_position"], num_samples, length) - item.get("first_sample", 0)
            crops.append(item["waveform"][start : start + length])
        features = self.feature_extractor(
            crops, sampling_rate=sampling_rate, padding=False, return_attention_mask=False, return_tensors="pt"
        )
        return {"input_values": features["input_values"]}


class LabelledClips(torch.utils.data.Dataset):
    """Whole clips with their labels in the order of the data set, decoded when they are read.

    With the Trainer, set `remove_unused_columns=False`: the items become inputs of the model in `LabelledCollator` only.

    Args:
        dataset: Clips in a column `audio`; all must be decodable.
        sampling_rate: Sampling rate of the waveforms in Hz.
        label_column: Name of the column with labels.
    """

    def __init__(self, dataset: Dataset, *, sampling_rate: int, label_column: str = "label"):
        self.clips = undecoded_audio(dataset)
        self.labels = dataset.with_format(None)[label_column][:]
        self.sampling_rate = sampling_rate

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decodes one clip.

        Args:
            index: Index of the clip in the data set.

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
    """Pads whole clips to a common length and encodes their labels.

    Each clip is normalised alone and then padded with zeros. The group norm of base models runs over time and includes
    the padding, so a clip's output depends on the length it is padded to. With `seconds`, that length is the same in all
    batches, and a clip's output does not depend on its batch.

    Attributes:
        feature_extractor: Feature extractor of the model, with `input_values` as its output.
        encode: Function from the labels of a batch to the model's `labels`.
        seconds: Length of all batches in seconds, above 0. Longer clips are cut at their end, and there is an attention
            mask only if the feature extractor has `return_attention_mask`: models that were trained without a mask read
            padding as silence. By default, batches are as long as their longest clip and always have a mask.

    Raises:
        ValueError: If `seconds` is not positive.
    """

    feature_extractor: Wav2Vec2FeatureExtractor
    encode: Callable[[Sequence[Any]], torch.Tensor]
    seconds: float | None = None

    def __post_init__(self):
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}; it must be above 0.")

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Makes one batch.

        Args:
            items: Items of `LabelledClips`, or of `ShuffledClips` with a `label_column`.

        Returns:
            `input_values` and, unless left out, `attention_mask`, both of shape (batch, samples); and `labels`.
        """
        sampling_rate = self.feature_extractor.sampling_rate
        length: dict[str, Any] = {"padding": True}
        if self.seconds is not None:
            samples = round(self.seconds * sampling_rate)
            length = {"padding": "max_length", "max_length": samples, "truncation": True}
        features = self.feature_extractor(
            [item["waveform"] for item in items],
            sampling_rate=sampling_rate,
            # Without the mask, the normalisation would include the padding.
            return_attention_mask=True,
            return_tensors="pt",
            **length,
        )
        batch = {"input_values": features["input_values"], "labels": self.encode([item["label"] for item in items])}
        if self.seconds is None or self.feature_extractor.return_attention_mask:
            batch["attention_mask"] = features["attention_mask"]
        return batch
