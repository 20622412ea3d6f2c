"""Scores of a model's layers for the labels of a task, and the choice among the layers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from ..data.classification_task import ClassificationTask
from ..truncation.convexity_config import CRITERIA
from ..truncation.layer_choice import LayerChoice, choose_layer
from ..truncation.layer_profile import LayerProfile, layer_convexity
from .arguments import AUTO, NONE, TruncationArguments


logger = logging.get_logger(__name__)

# Our choice: with fewer points, the score of a class is the mean over fewer than 20 pairs.
MIN_CLIPS_PER_CLASS = 5
# The one criterion that takes longer than a second, since it trains.
PROBE = "probe"
# Random seed of the sample of clips.
SEED = 42


def profile_clips(
    clips: Dataset, label: str, *, max_clips: int, min_clips_per_class: int = MIN_CLIPS_PER_CLASS, seed: int = SEED
) -> Dataset | None:
    """Samples the clips that layers are scored on, up to the same number of each class.

    Args:
        clips: Clips to sample from, with a column named `label`.
        label: Name of the column of labels. Clips without a label are left out.
        max_clips: Maximum number of clips of all classes together. If it is too small for `min_clips_per_class` clips
            of each class, the last classes in alphabetical order are left out.
        min_clips_per_class: Minimum number of clips of a class; classes with fewer are left out.
        seed: Random seed of the sample.

    Returns:
        The clips in their original order, or `None` if fewer than two classes are left.
    """
    labels = np.array(clips[label][:], dtype=object)
    counts = Counter(name for name in labels.tolist() if name is not None)
    classes = sorted(name for name, count in counts.items() if count >= min_clips_per_class)
    classes = classes[: max_clips // min_clips_per_class]
    if len(classes) < 2:
        return None
    generator = np.random.default_rng(seed)
    share = max_clips // len(classes)
    rows = [generator.permutation(np.flatnonzero(labels == name))[:share] for name in classes]
    return clips.select(np.sort(np.concatenate(rows)))


def profile_labels(
    model: PreTrainedModel,
    task: ClassificationTask,
    feature_extractor: Wav2Vec2FeatureExtractor,
    options: TruncationArguments,
    cache_dir: str | os.PathLike | None = None,
) -> dict[str, LayerProfile]:
    """Scores the layers of a model for each kind of labels, each on its own sample of training clips.

    Args:
        model: WavLM, HuBERT or wav2vec 2.0 model, with or without a head.
        task: Clips with their classes and further labels.
        feature_extractor: Feature extractor of the model's checkpoint.
        options: Options of the run. For the classes of the task, all criteria are computed, the linear probe only if it
            is to choose the layer; for other labels, convexity.
        cache_dir: Folder in which pooled features are cached; `None` for no cache.

    Returns:
        Kind of labels to the profile for it, without labels that have too few clips per class.

    Raises:
        ValueError: If the labels of the task have too few clips per class.
    """
    profiles, criteria_of_task = {}, [name for name in CRITERIA if name != PROBE or options.layer_criterion == PROBE]
    for label in (task.name, *task.other_labels):
        sample = profile_clips(task.splits["train"], label, max_clips=options.profile_clips)
        if sample is None:
            message = (
                f"Fewer than two classes of the label {label!r} have {MIN_CLIPS_PER_CLASS} training clips or more, "
                "which layer scores for this label need."
            )
            if label == task.name:
                raise ValueError(f"{message} Give more clips of each class.")
            logger.warning(f"{message} This label is left out of the profile.")
            continue
        criteria = criteria_of_task if label == task.name else ["convexity"]
        config = replace(options.convexity_config(), criteria=criteria)
        profiles[label] = layer_convexity(
            model, sample, feature_extractor, config, labels=[label], cache_dir=cache_dir
        )
    return profiles


def choose_depth(profiles: Mapping[str, LayerProfile], label: str, options: TruncationArguments) -> LayerChoice | None:
    """Chooses the number of layers to keep as the options say.

    Args:
        profiles: Label to the profile of the pretrained model.
        label: Name of the labels that are classified.
        options: Options of the run; `truncate` and `layer_criterion` are used.

    Returns:
        The choice, or `None` for all layers.

    Raises:
        ValueError: If `truncate` is a number that the model does not have.
    """
    if options.truncate == NONE:
        return None
    criterion = options.layer_criterion if options.truncate == AUTO else int(options.truncate)
    return choose_layer(profiles[label], criterion, label)
