"""Model inputs: crops of one length, and whole clips with labels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from hf_prunable.data.audio import AudioError
from hf_prunable.data.batches import CropCollator, LabelledClips, LabelledCollator
from tests.helpers.speech_files import RATE, clips_of_constants, tone
from tests.helpers.tiny_models import FAMILIES, FEATURE_NORMS, tiny_stock


PLAIN = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
NORMALISED = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)


@given(
    lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=6),
    positions=st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6),
    crop_samples=st.integers(1, 5000),
    fractions=st.lists(st.floats(0.01, 1), min_size=6, max_size=6),
)
def test_crops_of_a_batch_have_one_length_and_are_pieces_of_the_clips(lengths, positions, crop_samples, fractions):
    # Every value is one of a kind, so a crop has one place only.
    waveforms = [np.arange(length, dtype=np.float32) + 10_000 * row for row, length in enumerate(lengths)]
    items = [
        {"waveform": waveform, "crop_position": position, "crop_fraction": fraction}
        for waveform, position, fraction in zip(waveforms, positions, fractions, strict=False)
    ]
    batch = CropCollator(PLAIN, crop_seconds=crop_samples / RATE)(items)
    assert batch.keys() == {"input_values"}
    values = batch["input_values"]
    common = min(max(1, round(crop_samples * fractions[0])), *lengths)
    assert values.shape == (len(lengths), common) and values.dtype == torch.float32
    for row, (waveform, position) in enumerate(zip(waveforms, positions, strict=False)):
        start = int(values[row, 0]) - 10_000 * row
        assert abs(start - position * (len(waveform) - common)) <= 0.5
        np.testing.assert_array_equal(values[row].numpy(), waveform[start : start + common])


def test_normalisation_is_that_of_the_crop():
    waveform = np.concatenate([np.zeros(RATE), 5 + tone(1.0)]).astype(np.float32)
    items = [{"waveform": waveform, "crop_position": 0.999999}, {"waveform": tone(1.5), "crop_position": 0.0}]
    items = [{**item, "crop_fraction": 1.0} for item in items]
    values = CropCollator(NORMALISED, crop_seconds=1.0)(items)["input_values"]
    assert values.shape == (2, RATE)
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(dim=1), torch.ones(2), atol=1e-3, rtol=0)


def test_collator_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="crop_seconds is 0"):
        CropCollator(PLAIN, crop_seconds=0)
    with pytest.raises(ValueError, match="WhisperFeatureExtractor gives .*input_features"):
        CropCollator(WhisperFeatureExtractor(), crop_seconds=1.0)


def test_labelled_clips_are_in_order(tmp_path):
    labelled = LabelledClips(clips_of_constants(tmp_path).add_column("label", list("abcdefg")), sampling_rate=RATE)
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
