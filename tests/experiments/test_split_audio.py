"""Audio of the experiments: what is held out, and which crops are drawn."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from experiments.split_audio import SplitAudio, clip_names, draw_crops, load_clips, split_by_name
from hf_prunable.data.speech_dataset import load_speech_dataset
from tests.helpers.speech_files import RATE, tone, write, write_speech_commands


def noise(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_held_out_clips_are_chosen_by_name_alone(tmp_path):
    # The order of names differs from the order of folders.
    for folder, names in (("b", "02"), ("a", "134")):
        for name in names:
            write(tmp_path / folder / f"{name}.wav", tone(0.01))
    calibration, held_out = split_by_name(load_speech_dataset(tmp_path), 2)
    assert clip_names(held_out) == ["0.wav", "2.wav", "4.wav"] and clip_names(calibration) == ["1.wav", "3.wav"]
    with pytest.raises(ValueError, match="at least 2, but is 1"):
        split_by_name(held_out, 1)
    with pytest.raises(ValueError, match="There is 1 clip"):
        split_by_name(held_out.select([0]), 2)


def test_every_clip_serves_before_one_serves_twice():
    waveforms = [np.full(100, index) for index in range(5)] + [np.full(9, 5)]
    crops = draw_crops(waveforms, 12, 10, seed=1)
    drawn = [int(crop[0]) for crop in crops]
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == list(range(5))
    assert {len(crop) for crop in crops} == {10}
    with pytest.raises(ValueError, match="No clip has the 101 samples"):
        draw_crops(waveforms, 1, 101, seed=1)


def test_a_longer_draw_begins_with_a_shorter_one():
    waveforms = [np.arange(100) + 1000 * index for index in range(4)]
    few, many, other = (np.stack(draw_crops(waveforms, *draw)) for draw in ((3, 10, 1), (9, 10, 1), (3, 10, 2)))
    assert (few == many[:3]).all() and (few != other).any()


def test_all_crops_do_not_overlap():
    crops = draw_crops([np.arange(35), np.arange(100, 110), np.arange(9)], 0, 10, seed=1)
    assert [int(crop[0]) for crop in crops] == [0, 10, 20, 100]


def test_held_out_clips_are_not_for_training_or_calibration(tmp_path):
    waveforms = [noise(seconds, seed) for seed, seconds in enumerate((3.0, 3.5, 4.1, 2.2))]
    for index, waveform in enumerate(waveforms):
        write(tmp_path / f"{index}.wav", waveform, subtype="FLOAT")
    audio = SplitAudio(str(tmp_path), Wav2Vec2FeatureExtractor(do_normalize=False), 0.5, 3)
    assert clip_names(audio.held_out_clips) == ["0.wav", "3.wav"] and clip_names(audio.train_clips) == [
        "1.wav",
        "2.wav",
    ]
    assert (
        audio.crops_per_clip == [6, 4] and sum(len(batch["input_values"]) for batch in audio.held_out_batches()) == 10
    )
    held_out = np.concatenate([waveforms[0], waveforms[3][: 2 * RATE]])
    assert torch.equal(audio.held_out.flatten(), torch.from_numpy(held_out))
    expected = np.concatenate([waveforms[1], waveforms[2][: 4 * RATE]])
    assert torch.equal(audio.calibration(0, seed=1).flatten(), torch.from_numpy(expected))


def test_of_speech_commands_the_training_clips_are_loaded(tmp_path):
    clips = [f"no/{speaker}_nohash_0" for speaker in "abc"]
    write_speech_commands(tmp_path, clips, validation=["no/b_nohash_0"], test=["no/c_nohash_0"])
    assert clip_names(load_clips(tmp_path, RATE, 0.01)) == ["a_nohash_0.wav"]
    assert len(load_clips(tmp_path / "no", RATE, 0.01)) == 3
