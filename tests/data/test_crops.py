"""Crops of long recordings: equal to those of the whole to the bit, and what is read for them."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.data import crops
from hf_prunable.data.audio import AudioError, decode_audio
from hf_prunable.data.batches import CropCollator
from hf_prunable.data.crops import SEEKABLE_FORMATS, SEEKABLE_SUBTYPES, CropReader, decode_parts
from tests.helpers.speech_files import RATE, tone, write, write_truncated_flac


# Rates that are converted with short and long filters, up and down, and the model's own.
RATES = (8000, 11025, 12345, 16000, 22050, 44100, 44101, 48000, 96000)
SEEKABLE = [
    (name, subtype)
    for name in SEEKABLE_FORMATS
    for subtype in SEEKABLE_SUBTYPES
    if soundfile.check_format(name, subtype)
]
OTHERS = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610")]


@pytest.fixture
def seeking(monkeypatch):
    """Short clips are read in parts as well."""
    monkeypatch.setattr(crops, "MAX_WHOLE_SECONDS", 0.0)


@pytest.fixture
def opened(monkeypatch):
    """Whole clips that were decoded."""
    items = []
    monkeypatch.setattr(crops, "decode_audio", lambda audio, rate: items.append(audio) or decode_audio(audio, rate))
    return items


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


def noise(folder, kind, rate, channels, frames):
    name, subtype = kind
    path = folder / f"{name}-{subtype}-{rate}-{channels}-{frames}"
    if not path.exists():
        samples = 0.1 * np.random.default_rng(frames).standard_normal((frames, channels))
        soundfile.write(path, samples, rate, format=name, subtype=subtype)
    return {"path": str(path), "bytes": None}


def equal(part, whole):
    return part.dtype == np.float32 and part.tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", SEEKABLE + OTHERS, ids="-".join)
def test_parts_are_those_of_the_whole(folder, kind, seeking, opened):
    generator = np.random.default_rng(0)
    for rate in (48000,) if kind[1] == "OPUS" else (8000, 44100):
        channels = 1 if kind[1] == "GSM610" else 2
        item = noise(folder, kind, rate, channels, rate + 7)
        item = {"path": None, "bytes": Path(item["path"]).read_bytes()} if rate == 8000 else item
        whole = decode_audio(item, RATE)
        starts = sorted(generator.integers(0, len(whole) - 10, 4).tolist())
        chosen = [slice(0, 9), *(slice(start, start + 10) for start in starts), slice(len(whole) - 5, len(whole))]
        num_samples, parts = decode_parts(item, RATE, lambda _, chosen=chosen: chosen)
        assert num_samples == len(whole)
        assert all(equal(part, whole[where]) for part, where in zip(parts, chosen, strict=True))
    assert bool(opened) == (kind in OTHERS)


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(
        [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "ALAW")]
    ),
    rate=st.sampled_from(RATES),
    channels=st.sampled_from([1, 2, 3, 8]),
    frames=st.sampled_from([4000, 49999, 131072]),
    edges=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_any_part_at_any_rate(folder, kind, rate, channels, frames, edges):
    item = noise(folder, kind, rate, channels, frames)
    whole = decode_audio(item, RATE)
    start, stop = sorted(round(edge * len(whole)) for edge in edges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "MAX_WHOLE_SECONDS", 0.0)
        patch.setattr(crops, "decode_audio", lambda *_: pytest.fail("decoded whole"))
        num_samples, (part,) = decode_parts(item, RATE, lambda _: [slice(start, max(stop, start + 1))])
    assert num_samples == len(whole) and equal(part, whole[start : max(stop, start + 1)])


@settings(max_examples=300, deadline=None)
@given(
    position=st.floats(0, 1, exclude_max=True),
    num_samples=st.integers(1, 3000),
    longest=st.integers(1, 2000),
    length=st.integers(1, 2000),
)
def test_a_part_holds_the_crops_of_every_length(position, num_samples, longest, length):
    part = CropReader(RATE, crop_seconds=longest / RATE)._part(num_samples, position)
    length = min(longest, length, num_samples)
    start = crops.crop_start(position, num_samples, length)
    assert part.start <= start and start + length <= part.stop <= num_samples
    assert part.stop - part.start <= longest + 1


def test_batches_are_those_of_whole_clips(folder, seeking, opened):
    items = [noise(folder, ("FLAC", "PCM_16"), 22050, 1, frames) for frames in (22050, 15000, 70000)]
    positions = [0.0, 0.999, 0.37]
    for seconds, fraction in ((0.3, 1.0), (0.9, 0.4), (2.0, 0.7), (2.0, 1.0)):
        collate = CropCollator(Wav2Vec2FeatureExtractor(), crop_seconds=seconds)
        whole = [
            {**CropReader(RATE).read(item, where), "crop_fraction": fraction}
            for item, where in zip(items, positions, strict=True)
        ]
        parts = [
            {**CropReader(RATE, seconds).read(item, where), "crop_fraction": fraction}
            for item, where in zip(items, positions, strict=True)
        ]
        assert collate(parts)["input_values"].equal(collate(whole)["input_values"])
    assert len(opened) == 0 and len(parts[2]["waveform"]) == 2 * RATE + 1


def test_a_long_recording_is_not_decoded_whole(tmp_path, opened):
    item = write(tmp_path / "long.flac", tone(31))
    reader = CropReader(RATE, crop_seconds=1.0)
    crop = reader.read(item, 0.5)
    assert opened == [] and crop["num_samples"] == 31 * RATE and len(crop["waveform"]) == RATE + 1
    assert equal(crop["waveform"], decode_audio(item, RATE)[crop["first_sample"] :][: RATE + 1])
    assert len(CropReader(RATE).read(item, 0.5)["waveform"]) == 31 * RATE
    write(tmp_path / "short.flac", tone(29))
    reader.read({"path": str(tmp_path / "short.flac"), "bytes": None}, 0.5)
    assert len(opened) == 1


def test_what_is_damaged_is_decoded_whole(tmp_path, seeking, opened):
    item = write_truncated_flac(tmp_path / "cut.flac")
    assert len(CropReader(RATE, 0.1).read(item, 0.0)["waveform"]) == RATE // 10 + 1 and opened == []
    with pytest.raises(AudioError, match=r"cut\.flac: cannot be decoded"):
        CropReader(RATE, 0.1).read(item, 0.99)
    assert len(opened) == 1
    samples = tone(1.0)
    samples[-100] = math.nan
    item = write(tmp_path / "nan.wav", samples, subtype="FLOAT")
    assert np.isfinite(CropReader(RATE, 0.1).read(item, 0.0)["waveform"]).all()
    with pytest.raises(AudioError, match=r"nan\.wav: holds NaN"):
        CropReader(RATE, 0.1).read(item, 0.999)


def test_a_clip_that_is_shorter_than_its_header_says(tmp_path):
    item = write(tmp_path / "cut.mp3", np.random.default_rng(0).standard_normal(5 * RATE) / 10)
    (tmp_path / "cut.mp3").write_bytes((tmp_path / "cut.mp3").read_bytes()[:2000])
    assert 0 < CropReader(RATE, 1.0).read(item, 0.5)["num_samples"] < RATE
    with pytest.raises(AudioError, match=r"cut\.mp3: has 0\.\d\d s, less than 1 s"):
        CropReader(RATE, 1.0, min_seconds=1.0).read(item, 0.5)
