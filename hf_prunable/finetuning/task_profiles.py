"""The layers of a model over the words and the speakers of Speech Commands: scored and chosen from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel
from transformers.utils import logging

from ..data.speech_commands_tasks import TASKS
from ..truncation.layer_choice import LayerChoice, choose_layer
from ..truncation.layer_profile import CRITERIA, LayerProfile, layer_convexity
from .arguments import AUTO, NONE, TruncationArguments


logger = logging.get_logger(__name__)

# Fewer points hardly make a region.
MIN_CLIPS_PER_CLASS = 5
SEED = 42


def profile_clips(
    clips: Dataset, label: str, *, max_clips: int, min_clips_per_class: int = MIN_CLIPS_PER_CLASS, seed: int = SEED
) -> Dataset | None:
    """Draws the clips that layers are scored on: of each class at most its fair share.

    Args:
        clips: With a column of this label.
        label: "word" or "speaker".
        max_clips: Of all classes together.
        min_clips_per_class: Classes with fewer clips are left out.
        seed: Of the draw.

    Returns:
        The clips in their order, or `None` where fewer than two classes are left.
    """
    labels = np.array(clips[label][:])
    classes = sorted(name for name, count in Counter(labels.tolist()).items() if count >= min_clips_per_class)
    # More classes than fit are left out, not thinned out.
    classes = classes[: max_clips // min_clips_per_class]
    if len(classes) < 2:
        return None
    generator = np.random.default_rng(seed)
    share = max_clips // len(classes)
    rows = [generator.permutation(np.flatnonzero(labels == name))[:share] for name in classes]
    return clips.select(np.sort(np.concatenate(rows)))


def profile_labels(
    model: PreTrainedModel,
    clips: Dataset,
    feature_extractor: Any,
    options: TruncationArguments,
    cache_dir: str | os.PathLike | None = None,
) -> dict[str, LayerProfile]:
    """Scores the layers of a model for words and for speakers, each on clips of its own.

    Args:
        model: With a head or without.
        clips: To train on.
        feature_extractor: Of its checkpoint.
        options: With the task, whose labels get all criteria; the others get convexity.
        cache_dir: Of pooled features.

    Returns:
        Profiles by label; labels with too few clips of a class are left out.

    Raises:
        ValueError: If the task's are.
    """
    profiles = {}
    for label in TASKS:
        drawn = profile_clips(clips, label, max_clips=options.profile_clips)
        if drawn is None:
            message = (
                f"Fewer than two classes of the label {label!r} have {MIN_CLIPS_PER_CLASS} training clips, which its "
                "layers could be scored on."
            )
            if label == options.task:
                raise ValueError(f"{message} Give more clips, or set `truncate` to a number of layers.")
            logger.warning(f"{message} They are left out of the profile.")
            continue
        profiles[label] = layer_convexity(
            model,
            drawn,
            feature_extractor,
            labels=[label],
            criteria=CRITERIA if label == options.task else ["convexity"],
            n_neighbors=options.n_neighbors,
            max_pairs=options.max_pairs,
            num_permutations=options.num_permutations,
            cache_dir=cache_dir,
        )
    return profiles


def choose_depth(profiles: Mapping[str, LayerProfile], options: TruncationArguments) -> LayerChoice | None:
    """The layers to keep, as the options say; `None` for all.

    Args:
        profiles: Of the pretrained model, by label.
        options: With task, criterion and an explicit number.

    Raises:
        ValueError: If there are not so many layers.
    """
    if options.truncate == NONE:
        return None
    criterion = options.layer_criterion if options.truncate == AUTO else int(options.truncate)
    return choose_layer(profiles[options.task], criterion, options.task)
