"""Splits of labelled clips: as given, drawn by class, and drawn by group."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.data.class_splits import SPLITS, complete_splits, draw_class_splits, rare_classes


@given(sizes=st.lists(st.integers(3, 60), min_size=2, max_size=6), seed=st.integers(0, 1000))
def test_clips_are_drawn_by_class(sizes, seed):
    labels = [f"class {index}" for index, size in enumerate(sizes) for _ in range(size)]
    splits = complete_splits({"train": range(len(labels))}, labels, seed=seed)
    assert list(splits) == list(SPLITS)
    assert sorted(sum(splits.values(), [])) == list(range(len(labels)))
    for split, rows in splits.items():
        counts = Counter(labels[row] for row in rows)
        for label, size in Counter(labels).items():
            share = {"test": size / 10, "validation": size * 0.09, "train": size * 0.81}[split]
            assert counts[label] >= 1 and abs(counts[label] - share) <= 1.5


@given(
    groups=st.lists(st.integers(0, 12), min_size=40, max_size=120).filter(lambda groups: len(set(groups)) >= 3),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_groups_stay_together(groups, seed, data):
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(groups), max_size=len(groups)))
    splits = complete_splits({"train": range(len(groups))}, labels, groups, seed)
    assert sorted(sum(splits.values(), [])) == list(range(len(groups))) and all(splits.values())
    owned = [{groups[row] for row in rows} for rows in splits.values()]
    assert not owned[0] & owned[1] and not owned[0] & owned[2] and not owned[1] & owned[2]


def test_a_given_split_stays_and_the_other_is_drawn():
    labels = ["a", "b"] * 30
    splits = complete_splits({"train": range(40), "test": range(40, 60)}, labels)
    assert splits["test"] == list(range(40, 60)) and len(splits["validation"]) == 4
    assert sorted(splits["train"] + splits["validation"]) == list(range(40))
    groups = [row // 5 for row in range(60)]
    splits = complete_splits({"train": range(40), "test": range(40, 60)}, labels, groups)
    assert splits["test"] == list(range(40, 60)) and len(splits["validation"]) % 5 == 0 and splits["validation"]
    given_splits = {"train": [3, 1], "validation": [5], "test": [4]}
    assert complete_splits(given_splits, labels) == {"train": [1, 3], "validation": [5], "test": [4]}


def test_a_seed_decides():
    labels = ["a"] * 50 + ["b"] * 50
    drawn = [complete_splits({"train": range(100)}, labels, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_cannot_be_split():
    with pytest.raises(ValueError, match=r"2 of 3 groups are in more than one split: ann, bob. Give splits whose"):
        complete_splits({"train": [0, 1, 2], "test": [3, 4]}, "aabab", ["ann", "bob", "cid", "bob", "ann"])
    with pytest.raises(
        ValueError, match=r"Clips of 2 groups \(ann, bob\) make no three splits. Give clips of 3 groups"
    ):
        complete_splits({"train": range(4)}, "abab", ["ann", "ann", "bob", "bob"])
    with pytest.raises(ValueError, match="No clip that can be used is in the split 'test'"):
        complete_splits({"train": [0], "test": []}, "a")


def test_rare_classes():
    labels = ["a"] * 5 + ["b"] * 2 + ["c"] * 4
    assert rare_classes(range(11), labels, 3) == {5, 6}
    assert rare_classes(range(11), labels, 5) == {5, 6, 7, 8, 9, 10}
    # "c" has four clips of two speakers.
    groups = ["x", "y", "z", "x", "y", "x", "y", "x", "x", "y", "y"]
    assert rare_classes(range(11), labels, 3, groups) == {5, 6, 7, 8, 9, 10}


def test_the_split_of_one_class_is_frozen():
    assert draw_class_splits([range(10)], 42) == {"train": [0, 7, 3, 2, 4, 9, 1, 8], "validation": [6], "test": [5]}
