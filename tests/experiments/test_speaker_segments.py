"""The speaker task made from LibriSpeech."""

import io

import datasets
import numpy as np
import pytest
import soundfile

from experiments.speaker_segments import cut_segments, segment_splits, speaker_utterances
from hf_prunable.data.audio import decode_audio
from hf_prunable.data.speech_commands_tasks import SpeakerSplit, load_speech_commands_task
from tests.helpers.speech_files import RATE


@pytest.fixture
def utterances(tmp_path):
    rows = []
    for speaker, seconds in (("7", 8.5), ("12", 13.2)):
        path = tmp_path / f"{speaker}-1-0.flac"
        soundfile.write(path, np.linspace(-0.5, 0.5, int(seconds * RATE)), RATE)
        rows.append({"audio": {"path": str(path), "bytes": None}, "speaker": speaker})
    return rows


def test_segments_make_a_speaker_task(utterances, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = segment_splits(utterances)
    folder = tmp_path / "segments"
    folder.mkdir()
    for split, rows in splits.items():
        datasets.Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    task, _ = load_speech_commands_task(folder, "speaker", sampling_rate=RATE, speaker_split=SpeakerSplit(5))
    counts = {split: [part["speaker"][:].count(speaker) for speaker in ("7", "12")] for split, part in task.items()}
    assert counts == {"train": [5, 9], "validation": [1, 1], "test": [2, 2]}
    # The ramp rises: the test segments are the last ones.
    last = soundfile.read(io.BytesIO(splits["test"][1]["audio"]["bytes"]))[0]
    assert last[-1] == pytest.approx(0.5, abs=1e-3) and len(last) == RATE


def test_utterances_are_the_first_long_ones_of_each_speaker(tmp_path):
    generator = np.random.default_rng(0)
    for name, seconds in {"7-1-0000": 9.5, "7-1-0001": 20, "12-3-0004": 14, "30-3-0000": 5}.items():
        soundfile.write(tmp_path / f"{name}.flac", 0.1 * generator.standard_normal(round(seconds * RATE)), RATE)
    utterances = speaker_utterances(tmp_path, RATE)
    assert sorted(utterances["speaker"]) == ["12", "7"]
    whole = {clip["speaker"]: decode_audio(clip["audio"], RATE) for clip in utterances}
    segments = {speaker: cut_segments(waveform, RATE) for speaker, waveform in whole.items()}
    assert {split: len(parts) for split, parts in segments["12"].items()} == {"train": 9, "validation": 1, "test": 2}
    assert {split: len(parts) for split, parts in segments["7"].items()} == {"train": 6, "validation": 1, "test": 2}
    np.testing.assert_array_equal(np.concatenate(segments["12"]["test"]), whole["12"][-2 * RATE :])
    soundfile.write(tmp_path / "noise.wav", np.zeros(10 * RATE), RATE)
    with pytest.raises(ValueError, match="noise.wav .* SPEAKER-CHAPTER-UTTERANCE"):
        speaker_utterances(tmp_path, RATE)
