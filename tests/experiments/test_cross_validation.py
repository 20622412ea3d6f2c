"""Folds of words and speakers, and the probes of each."""

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from experiments.cross_validation import SPEAKER_FOLDS, WORD_FOLDS, ProbeTask, SpeechCommandsProbes, at_depth
from tests.helpers.speech_files import write_speech_commands
from tests.helpers.tiny_models import tiny_stock


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six speakers with a clip of three words each, and two of them with further clips."""
    clips = [f"{word}/{speaker}_nohash_0" for word in ("no", "up", "yes") for speaker in "abcdef"]
    clips += [f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in "ce" for take in (1, 2)]
    return write_speech_commands(
        tmp_path_factory.mktemp("words"), clips, validation=["no/b_nohash_0"], test=["yes/c_nohash_0"], seconds=0.15
    )


@pytest.fixture(scope="module")
def probes(folder):
    return SpeechCommandsProbes(str(folder), Wav2Vec2FeatureExtractor())


def test_all_clips_are_tested_and_no_speaker_is_in_two_folds(probes):
    words = probes.tasks["words"]
    speakers = np.array(probes.clips["speaker"][:])
    assert len(words.rows) == len(probes.clips) == 26 and words.num_classes == 3
    assert set(words.folds) == set(range(WORD_FOLDS))
    assert all(len(set(words.folds[speakers == speaker])) == 1 for speaker in "abcdef")
    assert words.group_sizes == [3, 3, 7, 3, 7, 3] and list(speakers) == sorted(speakers)


def test_each_fold_has_a_clip_of_each_speaker_with_enough_clips(probes):
    task = probes.tasks["speakers"]
    assert set(task.labels) == {"c", "e"} and task.group_sizes == [7, 7]
    for fold in range(SPEAKER_FOLDS):
        assert set(task.labels[task.folds == fold]) == {"c", "e"}
    assert [probes.clips[int(row)]["speaker"] for row in task.rows] == list(task.labels)


def test_folds_are_always_the_same(folder, probes):
    again = SpeechCommandsProbes(str(folder), Wav2Vec2FeatureExtractor())
    for name, task in probes.tasks.items():
        assert (again.tasks[name].folds == task.folds).all()


def test_features_are_in_the_order_of_the_clips(probes):
    assert probes.features(tiny_stock("wavlm")).shape == (26, 4, 24)


def test_a_probe_is_tested_on_the_clips_that_it_was_not_trained_on():
    generator = np.random.default_rng(0)
    labels = np.array(["a", "b"] * 10)
    # Each clip has a feature of its own, so only a probe that has seen it could know it.
    features = np.eye(20, dtype=np.float32)[:, None, :] + 0.01 * generator.standard_normal((20, 1, 20)).astype("f4")
    task = ProbeTask(np.arange(20), labels, np.arange(20) // 5, [5] * 4, 0.001)
    probes = task.fit(features)
    assert len(probes) == 4 and task.is_correct(probes, features).mean() < 0.9
    seen = ProbeTask(np.arange(20), labels, (np.arange(20) // 5 + 1) % 4, [5] * 4, 0.001)
    assert seen.is_correct(probes, features).mean() == 1.0


def test_a_shallower_encoder_has_states_at_all_relative_depths():
    features = np.arange(3.0)[None, :, None]
    assert at_depth(features, 5).ravel().tolist() == [0, 0, 1, 2, 2]
    assert (at_depth(features, 3) == features).all()


def test_too_few_speakers_are_refused(tmp_path):
    clips = [f"no/{speaker}_nohash_0" for speaker in "abcdef"]
    write_speech_commands(tmp_path, clips, ["no/a_nohash_0"], ["no/b_nohash_0"], seconds=0.15)
    with pytest.raises(ValueError, match="0 speakers have 4 clips or more"):
        SpeechCommandsProbes(str(tmp_path), Wav2Vec2FeatureExtractor())
