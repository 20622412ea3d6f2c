"""Options for speech: what is trained on, what is held out, and what is left out."""

import numpy as np
import pytest

from hf_prunable.data.arguments import SpeechArguments, load_speech
from tests.helpers.speech_files import RATE, tone, write


NUM_CLIPS, SECONDS = 24, 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for index in range(NUM_CLIPS):
        write(folder / f"{index:02d}.wav", tone(SECONDS))
    return folder


def load(folder, seed=3, sampling_rate=RATE, **options):
    arguments = SpeechArguments(str(folder), **{"min_seconds": SECONDS, **options})
    return load_speech(arguments, sampling_rate, seed)


def paths(clips):
    return [clip["audio"]["path"] for clip in clips]


@pytest.mark.parametrize(
    "options, count", [({"held_out_clips": 5}, 5), ({"held_out_fraction": 0.25}, NUM_CLIPS // 4), ({}, 1)]
)
def test_clips_are_held_out_by_number_or_fraction(folder, options, count):
    speech = load(folder, **options)
    assert len(speech.held_out_clips) == count and len(speech.train_clips) == NUM_CLIPS - count
    assert not set(paths(speech.held_out_clips)) & set(paths(speech.train_clips))
    assert speech.num_skipped == {}
    facts = speech.identity()
    assert facts["training clips"]["clips"] == NUM_CLIPS - count and facts["held-out clips"]["clips"] == count


@pytest.mark.parametrize(
    "options, message",
    [
        ({"held_out_clips": 0}, "`held_out_clips` is 0; it must be 1 or more"),
        ({"held_out_fraction": 1.0}, "`held_out_fraction` is 1.0; it must lie between 0 and 1"),
    ],
)
def test_held_out_clips_that_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **options)


def test_clips_are_identified_by_what_was_chosen(folder):
    first = load(folder, held_out_clips=5).identity()
    assert load(folder, held_out_clips=5).identity() == first
    for options in ({"seed": 4, "held_out_clips": 5}, {"held_out_clips": 6}):
        other = load(folder, **options).identity()
        assert all(other[purpose] != first[purpose] for purpose in first)


def test_lengths_are_measured_at_the_feature_extractors_rate(tmp_path):
    write(tmp_path / "short.wav", np.zeros(RATE // 100))
    for index in range(2):
        write(tmp_path / f"{index}.wav", tone(SECONDS))
    for sampling_rate in (RATE, 8000):
        speech = load(tmp_path, sampling_rate=sampling_rate, held_out_clips=1)
        assert speech.train_clips["seconds"][:] == [SECONDS] == speech.held_out_clips["seconds"][:]
        assert speech.num_skipped == {f"shorter than {SECONDS} s": 1}
