"""Clips of words and of speakers for scoring layers."""

import datasets

from experiments.scored_clips import ScoredClipsArguments
from tests.helpers.speech_files import RATE, write_speech_commands


LISTS = ("validation", "test")


def test_scored_clips_of_chosen_words(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = [
        f"{word}/{speaker}_nohash_{take}" for word in ("no", "up", "yes") for speaker in "ab" for take in range(6)
    ]
    held_out = {split: [f"{word}/b_nohash_{take}" for word in ("no", "up", "yes")] for take, split in enumerate(LISTS)}
    write_speech_commands(tmp_path / "clips", names, **held_out)
    clips = str(tmp_path / "clips")
    options = ScoredClipsArguments(
        words=clips, speakers=clips, output_dir="", min_clips_per_speaker=6, only_words=["yes", "no"]
    )
    loaded = options.load(RATE)
    assert set(loaded["word"]["word"][:]) == {"no", "yes"}
    # The speakers keep all their clips.
    assert len(loaded["speaker"]) > len(loaded["word"])
