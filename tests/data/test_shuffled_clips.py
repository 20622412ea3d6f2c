"""Clips in shuffled order: a function of seed and index, and batches of similar lengths."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.data import shuffled_clips
from hf_prunable.data.audio import AudioError, audio_dataset
from hf_prunable.data.batches import CropCollator, LabelledCollator
from hf_prunable.data.crops import CropReader
from hf_prunable.data.shuffled_clips import LengthGrouping, ShuffledClips
from hf_prunable.data.speech_dataset import load_speech_dataset, scan_speech_dataset
from tests.helpers.speech_files import RATE, clips_of_constants, disturb_random_state, write, write_truncated_flac


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(shuffled_clips.logger, "warning", lines.append)
    return lines


@pytest.fixture
def clips(tmp_path):
    return clips_of_constants(tmp_path)


RANDOM_LENGTHS = CropReader(RATE, shortest_crop=0.25)


def identity(item):
    return len(item["waveform"]), item["crop_position"], item["crop_fraction"]


def test_items_depend_on_seed_and_index_alone(clips):
    shuffled = ShuffledClips(clips, num_samples=20, reader=RANDOM_LENGTHS, seed=5)
    in_order = [identity(shuffled[index]) for index in range(20)]
    disturb_random_state()
    state = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    again = ShuffledClips(clips, num_samples=30, reader=RANDOM_LENGTHS, seed=5)
    backwards = [identity(again[index]) for index in reversed(range(20))]
    assert backwards[::-1] == in_order
    assert (np.random.get_state()[1] == state[0]).all() and (torch.get_rng_state() == state[1]).all()
    assert random.getstate() == state[2]
    loader = torch.utils.data.DataLoader(again, batch_size=None, num_workers=2, sampler=range(20))
    assert [identity(item) for item in loader] == in_order
    other = ShuffledClips(clips, num_samples=20, reader=RANDOM_LENGTHS, seed=6)
    assert [identity(item) for item in other] != in_order
    _, positions, fractions = zip(*in_order, strict=True)
    assert len(set(positions)) == len(set(fractions)) == 20
    assert all(0 <= position < 1 for position in positions)
    assert all(0.25 <= fraction < 1 for fraction in fractions)
    assert min(fractions) < 0.4 and max(fractions) > 0.85


def test_the_draws_of_a_seed_stay_what_they_were(clips):
    """A run that an earlier version began goes on with the same clips and crops."""
    shuffled = ShuffledClips(clips, num_samples=14, reader=CropReader(RATE), seed=5)
    assert [len(item["waveform"]) - 1000 for item in shuffled] == [4, 0, 2, 3, 1, 5, 6, 3, 0, 5, 1, 6, 4, 2]
    positions = [shuffled[index]["crop_position"] for index in (0, 1, 13)]
    assert positions == [0.8050029237453802, 0.7742041803738812, 0.3082846719159853]
    assert all(item["crop_fraction"] == 1 for item in shuffled)
    lengths = [3.0, 9.0, 1.0, 7.0, 5.0, 2.0, 8.0, 4.0, 6.0]
    clips = audio_dataset([f"{index}.wav" for index in range(9)], seconds=lengths)
    grouped = ShuffledClips(
        clips, num_samples=18, reader=CropReader(RATE), seed=1, length_grouping=LengthGrouping(2, max_seconds=7.5)
    )
    assert [grouped._order_of(epoch).tolist() for epoch in (0, 1)] == [
        [4, 8, 2, 5, 0, 7, 3, 6, 1],
        [2, 8, 3, 7, 4, 1, 6, 5, 0],
    ]


def test_every_pass_takes_every_clip_in_another_order(clips):
    shuffled = ShuffledClips(clips, num_samples=21, reader=CropReader(RATE))
    lengths = [len(item["waveform"]) for item in shuffled]
    passes = [lengths[start : start + 7] for start in (0, 7, 14)]
    assert len(shuffled) == len(lengths) == 21
    assert all(sorted(one) == list(range(1000, 1007)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_clip_that_breaks_is_replaced_by_the_next(clips, warnings, tmp_path):
    sound = ShuffledClips(clips, num_samples=14, reader=CropReader(RATE))
    expected = [identity(item) for item in sound]
    write_truncated_flac(tmp_path / "cut.flac")
    (tmp_path / "cut.flac").rename(tmp_path / "3.wav")
    shuffled = ShuffledClips(clips, num_samples=14, reader=CropReader(RATE))
    got = [identity(item) for item in shuffled]
    for start in (0, 7):
        for place in range(7):
            length, *crop = expected[start + place]
            if length == 1003:
                length = expected[start + (place + 1) % 7][0]
            assert got[start + place] == (length, *crop)
    assert len(warnings) == 2 and all("3.wav" in line for line in warnings)


def test_a_clip_that_decodes_too_short_is_replaced(tmp_path, warnings):
    """Before, it made all crops of its batch as short."""
    for number in range(3):
        write(tmp_path / f"{number}.mp3", np.random.default_rng(number).standard_normal(2 * RATE) / 10)
    cut = tmp_path / "1.mp3"
    cut.write_bytes(cut.read_bytes()[:2000])
    clips, skipped = scan_speech_dataset(load_speech_dataset(tmp_path), sampling_rate=RATE, min_seconds=1.0)
    assert skipped.count == 0
    reader = CropReader(RATE, crop_seconds=1.5, min_seconds=1.0)
    items = list(ShuffledClips(clips, num_samples=3, reader=reader))
    assert CropCollator(Wav2Vec2FeatureExtractor(), 1.5)(items)["input_values"].shape == (3, 1.5 * RATE)
    (line,) = warnings
    assert "Taking the next clip instead" in line and "1.mp3: has 0." in line and "less than 1 s" in line


def test_a_labelled_clip_that_is_cut_is_replaced(tmp_path, warnings):
    """Its label no longer fits, and a transcript may be longer than what is left."""
    for number in range(2):
        write(tmp_path / f"{number}.mp3", np.random.default_rng(number).standard_normal(2 * RATE) / 10)
    cut = tmp_path / "1.mp3"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    clips, _ = scan_speech_dataset(load_speech_dataset(tmp_path), sampling_rate=RATE, min_seconds=0.1)
    clips = clips.add_column("text", ["whole", "cut"])
    options = {"num_samples": 2, "reader": CropReader(RATE, min_seconds=0.1)}
    assert [item["label"] for item in ShuffledClips(clips, label_column="text", **options)] == ["whole"] * 2
    assert "s of the 2.00 s in its header" in warnings[0]
    assert len({len(item["waveform"]) for item in ShuffledClips(clips, **options)}) == 2


def test_reading_gives_up_when_no_clip_can_be_read(clips, warnings, tmp_path):
    shuffled = ShuffledClips(clips, num_samples=3, reader=CropReader(RATE))
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    with pytest.raises(AudioError, match="Not one of the 7 clips can be decoded"):
        shuffled[0]
    assert len(warnings) == 7


def test_impossible_arguments_are_refused(clips):
    with pytest.raises(ValueError, match="no clips to shuffle"):
        ShuffledClips(clips.select([]), num_samples=3, reader=CropReader(RATE))
    with pytest.raises(ValueError, match="seed is -1"):
        ShuffledClips(clips, num_samples=3, reader=CropReader(RATE), seed=-1)
    with pytest.raises(IndexError, match="index is 3; it must be 0 to 2"):
        ShuffledClips(clips, num_samples=3, reader=CropReader(RATE))[3]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    batch_size=st.integers(1, 7),
    passes=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_batches_hold_clips_of_similar_length(lengths, batch_size, passes, seed):
    clips = audio_dataset([f"{number}.wav" for number in range(len(lengths))], seconds=[float(x) for x in lengths])
    shuffled = ShuffledClips(
        clips,
        num_samples=passes * len(lengths),
        reader=CropReader(RATE),
        seed=seed,
        length_grouping=LengthGrouping(batch_size, max_seconds=20.0),
    )
    order = np.concatenate([shuffled._order_of(epoch) for epoch in range(passes)])
    for start in range(0, len(order), len(lengths)):
        assert sorted(order[start : start + len(lengths)]) == list(range(len(lengths)))
    # Within a pass, the batches that lie wholly in it split the sorted clips, but for those of the batches on its edges.
    seconds = np.minimum(lengths, 20)[order]
    for epoch in range(passes):
        inner = [
            seconds[start : start + batch_size]
            for start in range(0, len(order) - batch_size + 1, batch_size)
            if epoch * len(lengths) <= start and start + batch_size <= (epoch + 1) * len(lengths)
        ]
        inner.sort(key=lambda batch: (batch.min(), batch.max()))
        assert all(one.max() <= other.min() for one, other in itertools.pairwise(inner))


def test_batches_of_similar_length_come_in_random_order():
    lengths = np.random.default_rng(0).uniform(1, 10, 400)
    clips = audio_dataset([f"{number}.wav" for number in range(400)], seconds=lengths)
    options = {"num_samples": 400, "reader": CropReader(RATE), "length_grouping": LengthGrouping(4)}
    orders = [ShuffledClips(clips, seed=seed, **options)._order_of(0) for seed in (0, 0, 1)]
    assert (orders[0] == orders[1]).all() and (orders[0] != orders[2]).any()
    in_batches = lengths[orders[0]].reshape(100, 4)
    assert (in_batches.max(1) - in_batches.min(1)).mean() < 0.5
    assert abs(np.corrcoef(np.arange(100), in_batches.mean(1))[0, 1]) < 0.3


def test_labelled_clips_are_whole_and_padded(clips):
    labelled = clips.add_column("label", list("abcdefg"))
    shuffled = ShuffledClips(labelled, num_samples=7, reader=CropReader(RATE), label_column="label")
    items = [shuffled[index] for index in range(3)]
    collate = LabelledCollator(Wav2Vec2FeatureExtractor(), lambda labels: torch.tensor([ord(x) for x in labels]))
    batch = collate(items)
    lengths = [len(item["waveform"]) for item in items]
    assert batch["input_values"].shape == batch["attention_mask"].shape == (3, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert [chr(label) for label in batch["labels"]] == ["abcdefg"[length - 1000] for length in lengths]
