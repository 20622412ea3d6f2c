"""Calibration crops: how many of which clips, that they do not overlap, and what is refused."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.data.audio import audio_dataset
from hf_prunable.data.calibration_audio import CropRequest, read_calibration_audio
from hf_prunable.data.streaming import SpeechStream
from tests.helpers.speech_files import RATE, disturb_random_state, wav_bytes, write


AS_THEY_ARE = Wav2Vec2FeatureExtractor(do_normalize=False)
# Lengths in samples. A crop has 400.
LENGTHS = (1300, 399, 400, 850, 1000)
CROP_SECONDS = 400 / RATE


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips whose samples tell clip and position: the clip's number plus the position in 1 / 10,000."""
    folder = tmp_path_factory.mktemp("clips")
    for number, length in enumerate(LENGTHS):
        write(folder / f"{number}.wav", (number + np.arange(length) / 1e4) / 10, subtype="FLOAT")
    return audio_dataset(sorted(folder.iterdir()), seconds=[length / RATE for length in LENGTHS])


def read(clips, num_crops, seed=0, feature_extractor=AS_THEY_ARE):
    return read_calibration_audio(clips, feature_extractor, CropRequest(num_crops, CROP_SECONDS, seed))


def origins(waveforms):
    """Clip and first sample of each crop."""
    found = []
    for crop in waveforms:
        clip = int(crop[0] * 10)
        start = round((float(crop[0]) * 10 - clip) * 1e4)
        torch.testing.assert_close(crop, (clip + torch.arange(start, start + 400) / 1e4) / 10)
        found.append((clip, start))
    return found


def test_one_crop_of_a_clip_as_long_as_there_are_enough(clips):
    audio = read(clips, 3)
    assert audio.waveforms.shape == (3, 400) and audio.waveforms.dtype == torch.float32
    assert (audio.num_clips, audio.num_too_short) == (3, 1)
    numbers = [clip for clip, _ in origins(audio.waveforms)]
    assert len(set(numbers)) == 3 and 1 not in numbers


def test_longer_clips_give_further_crops_without_overlap(clips):
    audio = read(clips, 8)
    starts = {}
    for clip, start in origins(audio.waveforms):
        starts.setdefault(clip, []).append(start)
    # All that fit: 3 + 1 + 2 + 2.
    assert {clip: len(positions) for clip, positions in starts.items()} == {0: 3, 2: 1, 3: 2, 4: 2}
    for clip, positions in starts.items():
        edges = np.asarray(sorted(positions))
        assert (np.diff(edges) >= 400).all() and edges[-1] + 400 <= LENGTHS[clip]


def test_crops_are_a_function_of_the_seed(clips):
    first = read(clips, 5, seed=3).waveforms
    disturb_random_state()
    assert torch.equal(read(clips, 5, seed=3).waveforms, first)
    assert not torch.equal(read(clips, 5, seed=4).waveforms, first)


def test_each_crop_is_normalised(clips):
    crops = read(clips, 4, feature_extractor=Wav2Vec2FeatureExtractor()).waveforms
    torch.testing.assert_close(crops.mean(1), torch.zeros(4), rtol=0, atol=1e-4)
    # The samples' own deviation is 0.001, and the feature extractor adds 1e-7 to its square.
    torch.testing.assert_close(crops.std(1), torch.ones(4), rtol=0, atol=0.1)


def test_too_few_crops_are_refused(clips):
    with pytest.raises(ValueError, match="`calibration_clips` is 9 .*hold only 8 crops .*fewer or shorter"):
        read(clips, 9)


def test_a_damaged_clip_is_replaced(clips, tmp_path):
    damaged = tmp_path / "damaged.wav"
    damaged.write_bytes(b"RIFF")
    paths = [damaged if number == 0 else clip["audio"]["path"] for number, clip in enumerate(clips)]
    audio = read(audio_dataset(paths, seconds=clips["seconds"][:]), 5)
    assert {clip for clip, _ in origins(audio.waveforms)} == {2, 3, 4}
    with pytest.raises(ValueError, match="hold only 5 crops"):
        read(audio_dataset(paths, seconds=clips["seconds"][:]), 6)


@pytest.mark.parametrize(
    "num_crops, seconds, name", [(0, 1.0, "clips"), (1, 0.0, "seconds"), (1, float("nan"), "sec")]
)
def test_requests_out_of_range_are_refused(num_crops, seconds, name):
    with pytest.raises(ValueError, match=f"`calibration_{name}"):
        CropRequest(num_crops, seconds, 0)


def test_a_stream_gives_one_crop_of_a_clip_that_is_not_held_out():
    samples = [0.01 * (number + 1) * np.ones(length) for number, length in enumerate((500, 100, 600, 400))]
    rows = [{"bytes": wav_bytes(clip), "path": None} for clip in samples]
    stream, held_out = SpeechStream(Dataset.from_dict({"audio": rows}).to_iterable_dataset(), 0.0).hold_out(1)
    audio = read(stream, 2)
    assert len(held_out) == 1 and audio.num_clips == 2
    assert sorted(audio.waveforms[:, 0].tolist()) == pytest.approx([0.03, 0.04], abs=1e-4)
    with pytest.raises(ValueError, match="hold only 2 crops"):
        read(stream, 3)
