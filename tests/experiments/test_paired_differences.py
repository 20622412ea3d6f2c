"""Paired differences and their intervals over groups."""

import numpy as np
import pytest

from experiments.paired_differences import GroupedOutcome, paired_difference


def outcome(correct, sizes):
    return GroupedOutcome(np.array(correct, dtype=float), np.array(sizes))


def test_clips_are_added_up_by_group():
    found = GroupedOutcome.of_clips("110100", [3, 1, 2])
    assert found.correct.tolist() == [2, 1, 0] and found.sizes.tolist() == [3, 1, 2]
    mean = GroupedOutcome.mean([found, GroupedOutcome.of_clips("000000", [3, 1, 2])])
    assert mean.correct.tolist() == [1, 0.5, 0]


def test_equal_outcomes_do_not_differ():
    found = outcome([1, 2, 0], [2, 2, 1])
    difference = paired_difference(found, found)
    assert (difference.mean, difference.lower, difference.upper) == (0, 0, 0) and not difference.is_beyond_chance


def test_a_difference_in_every_group_is_beyond_chance_however_unlike_the_groups_are():
    generator = np.random.default_rng(0)
    sizes = generator.integers(2, 9, size=60)
    correct = generator.integers(1, sizes)
    worse = paired_difference(outcome(correct - 1, sizes), outcome(correct, sizes))
    assert worse.mean == pytest.approx(-60 / sizes.sum()) and worse.upper < 0 and worse.is_beyond_chance
    better = paired_difference(outcome(correct, sizes), outcome(correct - 1, sizes))
    assert better.lower == pytest.approx(-worse.upper)


def test_groups_are_drawn_whole():
    generator = np.random.default_rng(0)
    # One of two speakers in ten changes in all ten clips.
    by_speaker = outcome(10 * (generator.random(40) < 0.2), [10] * 40)
    by_clip = outcome(np.repeat(by_speaker.correct / 10, 10), [1] * 400)
    widths = []
    for found in (by_speaker, by_clip):
        difference = paired_difference(found, outcome(np.zeros(len(found.sizes)), found.sizes))
        widths.append(difference.upper - difference.lower)
    assert widths[0] > 2 * widths[1]


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        found, reference = (outcome(generator.binomial(5, p, size=100), [5] * 100) for p in (0.6, 0.5))
        difference = paired_difference(found, reference)
        hits += difference.lower <= 0.1 <= difference.upper
    assert hits >= 52


def test_other_clips_are_refused():
    with pytest.raises(ValueError, match="Results of 3 and of 4 clips or frames"):
        paired_difference(outcome([1, 1], [2, 1]), outcome([1, 1], [2, 2]))
