"""Batches of clips: every clip once, of one length where that is asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable.truncation.clip_batches import group_by_length, plan_batches


@given(st.lists(st.integers(0, 4)), st.integers(1, 5), st.booleans())
def test_batches_hold_every_clip_once(lengths, batch_size, equal_lengths):
    batches = list(plan_batches(lengths, batch_size, equal_lengths))
    assert sorted(sum(batches, [])) == [clip_idx for clip_idx, length in enumerate(lengths) if length]
    assert all(0 < len(batch) <= batch_size for batch in batches)
    if equal_lengths:
        assert all(len({lengths[clip_idx] for clip_idx in batch}) == 1 for batch in batches)


def test_waveforms_are_grouped_by_their_own_length():
    waveforms = {clip_idx: np.zeros(length) for clip_idx, length in ((4, 30), (0, 20), (7, 30), (1, 10))}
    assert group_by_length(waveforms) == [[4, 7], [0], [1]]
    assert group_by_length({}) == []
