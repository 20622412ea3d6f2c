"""Random crops and the batches made of them."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from hf_prunable.data import batches
from hf_prunable.data.audio import AudioError, audio_dataset
from hf_prunable.data.batches import CropCollator, LabelledClips, LabelledCollator, RandomCrops
from hf_prunable.data.speech_dataset import load_speech_dataset
from tests.helpers.speech_files import RATE, disturb_random_state, tone, write, write_truncated_flac
from tests.helpers.tiny_models import FAMILIES, FEATURE_NORMS, tiny_stock


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(batches.logger, "warning", lines.append)
    return lines


@pytest.fixture
def clips(tmp_path):
    """Seven clips, each of a constant value and a length of its own."""
    for number in range(7):
        write(tmp_path / f"{number}.wav", np.full(1000 + number, number / 10), subtype="FLOAT")
    return load_speech_dataset(tmp_path)


def identity(item):
    return len(item["waveform"]), item["crop_position"]


def test_crops_depend_on_seed_and_index_alone(clips):
    crops = RandomCrops(clips, num_samples=20, sampling_rate=RATE, seed=5)
    in_order = [identity(crops[index]) for index in range(20)]
    disturb_random_state()
    state = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    again = RandomCrops(clips, num_samples=30, sampling_rate=RATE, seed=5)
    backwards = [identity(again[index]) for index in reversed(range(20))]
    assert backwards[::-1] == in_order
    assert (np.random.get_state()[1] == state[0]).all() and (torch.get_rng_state() == state[1]).all()
    assert random.getstate() == state[2]
    loader = torch.utils.data.DataLoader(again, batch_size=None, num_workers=2, sampler=range(20))
    assert [identity(item) for item in loader] == in_order
    other = RandomCrops(clips, num_samples=20, sampling_rate=RATE, seed=6)
    assert [identity(item) for item in other] != in_order
    assert len({position for _, position in in_order}) == 20
    assert all(0 <= position < 1 for _, position in in_order)


def test_every_pass_takes_every_clip_in_another_order(clips):
    crops = RandomCrops(clips, num_samples=21, sampling_rate=RATE)
    lengths = [len(item["waveform"]) for item in crops]
    passes = [lengths[start : start + 7] for start in (0, 7, 14)]
    assert len(crops) == len(lengths) == 21
    assert all(sorted(one) == list(range(1000, 1007)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_clip_that_breaks_is_replaced_by_the_next(clips, warnings, tmp_path):
    sound = RandomCrops(clips, num_samples=14, sampling_rate=RATE)
    expected = [identity(item) for item in sound]
    write_truncated_flac(tmp_path / "cut.flac")
    (tmp_path / "cut.flac").rename(tmp_path / "3.wav")
    crops = RandomCrops(clips, num_samples=14, sampling_rate=RATE)
    got = [identity(item) for item in crops]
    for start in (0, 7):
        for place in range(7):
            length, position = expected[start + place]
            if length == 1003:
                length = expected[start + (place + 1) % 7][0]
            assert got[start + place] == (length, position)
    assert len(warnings) == 2 and all("3.wav" in line for line in warnings)


def test_crops_give_up_when_no_clip_can_be_read(clips, warnings, tmp_path):
    crops = RandomCrops(clips, num_samples=3, sampling_rate=RATE)
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    with pytest.raises(AudioError, match="Not one of the 7 clips can be decoded"):
        crops[0]
    assert len(warnings) == 7


def test_crops_refuse_what_makes_no_sense(clips):
    with pytest.raises(ValueError, match="no clips to crop"):
        RandomCrops(clips.select([]), num_samples=3, sampling_rate=RATE)
    with pytest.raises(ValueError, match="seed is -1"):
        RandomCrops(clips, num_samples=3, sampling_rate=RATE, seed=-1)
    with pytest.raises(IndexError, match="index is 3; it must be 0 to 2"):
        RandomCrops(clips, num_samples=3, sampling_rate=RATE)[3]


PLAIN = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
NORMALISED = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)


@given(
    lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=6),
    positions=st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6),
    crop_samples=st.integers(1, 5000),
)
def test_crops_of_a_batch_have_one_length_and_are_pieces_of_the_clips(lengths, positions, crop_samples):
    # Every value is one of a kind, so a crop has one place only.
    waveforms = [np.arange(length, dtype=np.float32) + 10_000 * row for row, length in enumerate(lengths)]
    items = [
        {"waveform": waveform, "crop_position": position}
        for waveform, position in zip(waveforms, positions, strict=False)
    ]
    batch = CropCollator(PLAIN, crop_seconds=crop_samples / RATE)(items)
    assert batch.keys() == {"input_values"}
    values = batch["input_values"]
    common = min(crop_samples, *lengths)
    assert values.shape == (len(lengths), common) and values.dtype == torch.float32
    for row, (waveform, position) in enumerate(zip(waveforms, positions, strict=False)):
        start = int(values[row, 0]) - 10_000 * row
        assert abs(start - position * (len(waveform) - common)) <= 0.5
        np.testing.assert_array_equal(values[row].numpy(), waveform[start : start + common])


def test_normalisation_is_that_of_the_crop():
    waveform = np.concatenate([np.zeros(RATE), 5 + tone(1.0)]).astype(np.float32)
    items = [{"waveform": waveform, "crop_position": 0.999999}, {"waveform": tone(1.5), "crop_position": 0.0}]
    values = CropCollator(NORMALISED, crop_seconds=1.0)(items)["input_values"]
    assert values.shape == (2, RATE)
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(dim=1), torch.ones(2), atol=1e-3, rtol=0)


def test_collator_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="crop_seconds is 0"):
        CropCollator(PLAIN, crop_seconds=0)
    with pytest.raises(ValueError, match="WhisperFeatureExtractor gives .*input_features"):
        CropCollator(WhisperFeatureExtractor(), crop_seconds=1.0)


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    batch_size=st.integers(1, 7),
    passes=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_batches_hold_clips_of_like_length(lengths, batch_size, passes, seed):
    clips = audio_dataset([f"{number}.wav" for number in range(len(lengths))], seconds=[float(x) for x in lengths])
    crops = RandomCrops(
        clips,
        num_samples=passes * len(lengths),
        sampling_rate=RATE,
        seed=seed,
        batch_size=batch_size,
        longest_seconds=20.0,
    )
    order = np.concatenate([crops._order_of(epoch) for epoch in range(passes)])
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


def test_batches_of_like_length_come_in_random_order():
    lengths = np.random.default_rng(0).uniform(1, 10, 400)
    clips = audio_dataset([f"{number}.wav" for number in range(400)], seconds=lengths)
    options = {"num_samples": 400, "sampling_rate": RATE, "batch_size": 4}
    orders = [RandomCrops(clips, seed=seed, **options)._order_of(0) for seed in (0, 0, 1)]
    assert (orders[0] == orders[1]).all() and (orders[0] != orders[2]).any()
    in_batches = lengths[orders[0]].reshape(100, 4)
    assert (in_batches.max(1) - in_batches.min(1)).mean() < 0.5
    assert abs(np.corrcoef(np.arange(100), in_batches.mean(1))[0, 1]) < 0.3


def test_labelled_clips_are_whole_and_padded(clips):
    labelled = clips.add_column("label", list("abcdefg"))
    crops = RandomCrops(labelled, num_samples=7, sampling_rate=RATE, label_column="label")
    items = [crops[index] for index in range(3)]
    collate = LabelledCollator(Wav2Vec2FeatureExtractor(), lambda labels: torch.tensor([ord(x) for x in labels]))
    batch = collate(items)
    lengths = [len(item["waveform"]) for item in items]
    assert batch["input_values"].shape == batch["attention_mask"].shape == (3, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert [chr(label) for label in batch["labels"]] == ["abcdefg"[length - 1000] for length in lengths]


def test_labelled_clips_are_in_order(clips, tmp_path):
    labelled = LabelledClips(clips.add_column("label", list("abcdefg")), sampling_rate=RATE)
    assert [(len(labelled[place]["waveform"]), labelled[place]["label"]) for place in range(len(labelled))] == [
        (1000 + place, "abcdefg"[place]) for place in range(7)
    ]
    (tmp_path / "3.wav").unlink()
    with pytest.raises(AudioError, match=r"3\.wav: there is no such file"):
        labelled[3]


def encode(labels):
    return torch.tensor(labels)


def labelled_items(lengths):
    generator = np.random.default_rng(0)
    return [{"waveform": generator.normal(1, 1, n).astype(np.float32), "label": row} for row, n in enumerate(lengths)]


@pytest.mark.parametrize("do_normalize", (False, True))
@pytest.mark.parametrize("masked", (False, True))
def test_batches_of_one_length(masked, do_normalize):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=masked)
    items = labelled_items([700, 1000, 1300])
    batch = LabelledCollator(extractor, encode, seconds=1000 / RATE)(items)
    assert batch.keys() == {"input_values", "labels"} | ({"attention_mask"} if masked else set())
    assert batch["input_values"].shape == (3, 1000) and batch["labels"].tolist() == [0, 1, 2]
    if masked:
        assert batch["attention_mask"].sum(1).tolist() == [700, 1000, 1000]
    assert not batch["input_values"][0, 700:].any()
    for values, item in zip(batch["input_values"], items, strict=True):
        waveform = torch.from_numpy(item["waveform"][:1000])
        if do_normalize:
            waveform = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
        torch.testing.assert_close(values[: len(waveform)], waveform, atol=1e-5, rtol=0)


@pytest.mark.parametrize("feature_norm", FEATURE_NORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_clips_logits_do_not_depend_on_its_batch(family, feature_norm):
    model = tiny_stock(family, head="classification", feature_norm=feature_norm, num_labels=4)
    collate = LabelledCollator(NORMALISED if feature_norm == "group" else PLAIN, encode, seconds=1200 / RATE)
    items = labelled_items([700, 1000, 1200, 900])
    with torch.no_grad():
        together = model(**collate(items)).logits
        alone = torch.cat([model(**collate([item])).logits for item in items])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_batches_of_no_length_are_refused():
    with pytest.raises(ValueError, match="seconds is 0; it must be above 0"):
        LabelledCollator(PLAIN, encode, seconds=0)
