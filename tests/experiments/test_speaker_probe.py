"""Utterances and segments of the speaker probe."""

import numpy as np
import pytest
import soundfile

from experiments.speaker_probe import cut_segments, speaker_utterances, without_test_segments
from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_dataset import load_speech_dataset
from tests.helpers.speech_files import RATE


def test_segments_of_speakers_are_kept_from_training(tmp_path):
    generator = np.random.default_rng(0)
    lengths = {"7-1-0000": 9.5, "7-1-0001": 20, "12-3-0004": 14, "30-3-0000": 5}
    for name, seconds in lengths.items():
        soundfile.write(tmp_path / f"{name}.flac", 0.1 * generator.standard_normal(round(seconds * RATE)), RATE)
    utterances = speaker_utterances(tmp_path, RATE)
    assert sorted(utterances["speaker"]) == ["12", "7"]
    whole = {clip["speaker"]: decode_audio(clip["audio"], RATE) for clip in utterances}
    segments = {speaker: cut_segments(waveform, RATE) for speaker, waveform in whole.items()}
    assert {split: len(parts) for split, parts in segments["12"].items()} == {"train": 9, "validation": 1, "test": 2}
    assert {split: len(parts) for split, parts in segments["7"].items()} == {"train": 6, "validation": 1, "test": 2}
    np.testing.assert_array_equal(np.concatenate(segments["12"]["test"]), whole["12"][-2 * RATE :])
    trained = without_test_segments(load_speech_dataset(tmp_path), utterances, RATE)
    seconds = {
        clip["audio"]["path"].split("/")[-1][:-5]: len(decode_audio(clip["audio"], RATE)) / RATE for clip in trained
    }
    assert seconds == {"7-1-0000": 7.5, "7-1-0001": 20, "12-3-0004": 12, "30-3-0000": 5}
    soundfile.write(tmp_path / "noise.wav", np.zeros(10 * RATE), RATE)
    with pytest.raises(ValueError, match="noise.wav .* SPEAKER-CHAPTER-UTTERANCE"):
        speaker_utterances(tmp_path, RATE)
