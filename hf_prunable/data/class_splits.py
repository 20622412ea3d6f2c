"""Splits of labelled clips for training, validation and testing: as given, or drawn by a seed."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ..runtime.messages import first_names
from .classification_task import SPLITS, TEST, TRAIN, VALIDATION


SPLIT_SEED = 42
TEST_FRACTION = 0.1
# Fraction of the clips that are left after the test clips were drawn.
VALIDATION_FRACTION = 0.1


def complete_splits(
    given: Mapping[str, Sequence[int]],
    labels: Sequence[str],
    groups: Sequence[Hashable] | None = None,
    seed: int = SPLIT_SEED,
) -> dict[str, list[int]]:
    """Takes the splits that are given, and draws those that are missing from the training clips.

    Clips of one group, such as a speaker, come into one split.

    Args:
        given: Indices of the clips of the given splits, "train" among them.
        labels: Class of each clip.
        groups: Group of each clip; `None` for clips that are independent.
        seed: Random seed of the splits that are drawn.

    Returns:
        Indices of the clips of the three splits, in ascending order.

    Raises:
        ValueError: If a split that is given has no clips, a group is in two of them, or there are too few groups to draw
            splits from.
    """
    if empty := [split for split, rows in given.items() if not rows]:
        raise ValueError(f"No clip that can be used is in the split {' and '.join(map(repr, empty))}.")
    if groups is not None:
        _check_disjoint(given, groups)
    missing = [split for split in SPLITS if split not in given]
    splits = {split: list(rows) for split, rows in given.items()}
    if missing:
        drawn = (
            _draw_clips(given[TRAIN], labels, seed)
            if groups is None
            else _draw_groups(given[TRAIN], labels, groups, seed)
        )
        splits |= {split: drawn[split] for split in missing}
        taken = {row for split in missing for row in drawn[split]}
        splits[TRAIN] = [row for row in splits[TRAIN] if row not in taken]
    return {split: sorted(splits[split]) for split in SPLITS}


def draw_class_splits(clips_of_classes: Sequence[Sequence[int]], seed: int) -> dict[str, list[int]]:
    """Splits the clips of each class: a tenth for testing, a tenth of the others for validation, at least one each.

    Args:
        clips_of_classes: Indices of the clips of each class, 3 or more.
        seed: Random seed of the split.

    Returns:
        Indices of the clips of each split.
    """
    generator = np.random.default_rng(seed)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for clips in clips_of_classes:
        order = [clips[index] for index in generator.permutation(len(clips))]
        num_test = max(1, round(TEST_FRACTION * len(order)))
        num_validation = max(1, round(VALIDATION_FRACTION * (len(order) - num_test)))
        splits[TEST] += order[:num_test]
        splits[VALIDATION] += order[num_test : num_test + num_validation]
        splits[TRAIN] += order[num_test + num_validation :]
    return splits


def _draw_clips(rows: Sequence[int], labels: Sequence[str], seed: int) -> dict[str, list[int]]:
    clips_of = _clips_of_classes(rows, labels)
    return draw_class_splits([clips_of[label] for label in sorted(clips_of)], seed)


def _clips_of_classes(rows: Sequence[int], labels: Sequence[str]) -> dict[str, list[int]]:
    clips_of: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        clips_of[labels[row]].append(row)
    return clips_of


def _draw_groups(
    rows: Sequence[int], labels: Sequence[str], groups: Sequence[Hashable], seed: int
) -> dict[str, list[int]]:
    """Draws splits of whole groups, with about a tenth of the clips, and of each class, for testing and for validation."""
    own_groups = [str(groups[row]) for row in rows]
    num_folds = min(round(1 / TEST_FRACTION), len(set(own_groups)))
    if num_folds < len(SPLITS):
        raise ValueError(
            f"Clips of {num_folds} groups ({first_names(sorted(set(own_groups)))}) make no three splits. Give clips of "
            f"{len(SPLITS)} groups or more, or leave `group_column` out."
        )
    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # That a class has fewer clips than there are folds; each class has clips of three groups.
        warnings.simplefilter("ignore", UserWarning)
        parts = [part for _, part in folds.split(np.zeros(len(rows)), [labels[row] for row in rows], own_groups)]
    drawn = {TEST: parts[0], VALIDATION: parts[1], TRAIN: np.concatenate(parts[2:])}
    return {split: [rows[index] for index in part] for split, part in drawn.items()}


def _check_disjoint(given: Mapping[str, Sequence[int]], groups: Sequence[Hashable]) -> None:
    splits_of: dict[Hashable, set[str]] = defaultdict(set)
    for split, rows in given.items():
        for row in rows:
            splits_of[groups[row]].add(split)
    if shared := sorted(str(group) for group, splits in splits_of.items() if len(splits) > 1):
        raise ValueError(
            f"{len(shared)} of {len(splits_of)} groups are in more than one split: {first_names(shared)}. Give splits "
            "whose groups are disjoint, or leave `group_column` out."
        )


def rare_classes(
    rows: Sequence[int], labels: Sequence[str], min_clips: int, groups: Sequence[Hashable] | None = None
) -> set[int]:
    """Finds the training clips of classes that are too small for a clip, or a group, in every split.

    Args:
        rows: Indices of the training clips.
        labels: Class of each clip.
        min_clips: Minimum number of training clips of a class.
        groups: Group of each clip, of which a class needs one for each split; `None` for none.

    Returns:
        Indices of the clips of small classes.
    """
    rare: set[int] = set()
    for clips in _clips_of_classes(rows, labels).values():
        too_few_groups = groups is not None and len({groups[row] for row in clips}) < len(SPLITS)
        if len(clips) < min_clips or too_few_groups:
            rare |= set(clips)
    return rare
