"""Clips of a run: crops, order, and processes that have different ones."""

from types import SimpleNamespace

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.data.audio import audio_dataset
from hf_prunable.pruning import training_data
from hf_prunable.pruning.training_data import TrainingData
from tests.helpers.speech_files import RATE, write


ARGS = SimpleNamespace(max_steps=3, train_batch_size=2, micro_batches_per_step=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number, samples in enumerate(np.random.default_rng(0).standard_normal((5, RATE // 10))):
        write(folder / f"{number}.wav", 0.1 * samples)
    return audio_dataset(sorted(folder.iterdir()), seconds=[0.1] * 5)


def make(clips, crop_seconds=0.05, **options):
    held_out = clips.select(range(3, 5))
    return TrainingData(clips.select(range(3)), held_out, Wav2Vec2FeatureExtractor(), crop_seconds, **options)


def test_a_stage_has_a_clip_for_each_place_of_its_batches(clips):
    data = make(clips)
    stage, same, other = (data.for_training(ARGS, seed) for seed in (1, 1, 2))
    assert len(stage) == 12
    items, same_items, other_items = (
        [clips[index]["crop_position"] for index in range(12)] for clips in (stage, same, other)
    )
    assert items == same_items != other_items
    batch = data.collator([stage[0], stage[1]])
    assert batch.keys() == {"input_values"} and batch["input_values"].shape == (2, RATE // 20)


def test_crops_of_random_length_are_for_training_alone(clips):
    data = make(clips, shortest_crop_seconds=0.02)
    stage, held_out = data.for_training(ARGS, seed=1), data.for_evaluation()
    lengths = {data.collator([stage[index]])["input_values"].shape[1] for index in range(12)}
    assert len(lengths) == 12 and 0.02 * RATE <= min(lengths) < max(lengths) <= 0.05 * RATE
    assert {data.collator([item])["input_values"].shape[1] for item in held_out} == {RATE // 20}
    # Clips and positions are those of crops of one length.
    plain = make(clips).for_training(ARGS, seed=1)
    assert [item["crop_position"] for item in stage] == [item["crop_position"] for item in plain]


def test_each_held_out_clip_is_evaluated_once_and_always_alike(clips):
    one, other = (make(clips).for_evaluation() for _ in range(2))
    assert len(one) == 2
    waveforms = [one[index]["waveform"] for index in range(2)]
    assert not np.array_equal(*waveforms)
    assert all(np.array_equal(waveform, other[index]["waveform"]) for index, waveform in enumerate(waveforms))
    assert one[0]["crop_position"] == other[0]["crop_position"]


def test_crops_without_a_length_are_refused(clips):
    with pytest.raises(ValueError, match="crop_seconds is 0; it must be above 0"):
        make(clips, crop_seconds=0)


def test_processes_with_different_clips_are_named(clips, monkeypatch):
    data = make(clips)
    monkeypatch.setattr(training_data, "gather_object", lambda found: found * 2)
    data.check_ranks_agree()
    monkeypatch.setattr(training_data, "gather_object", lambda found: [*found, (7, "0123456789abcdef")])
    with pytest.raises(ValueError, match=r"different audio for training: 3 clips \(\w{8}\), 7 clips \(01234567\), in"):
        data.check_ranks_agree()
