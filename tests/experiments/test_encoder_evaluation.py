"""Evaluation of encoders: which clips are trained on, and what is measured on the others."""

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from experiments import encoder_evaluation
from experiments.encoder_evaluation import EncoderEvaluation, EvaluationArguments
from tests.helpers.speech_files import RATE, write, write_speech_commands
from tests.helpers.tiny_models import tiny_stock


@pytest.fixture
def options(tmp_path):
    """Four utterances of two speakers, and Speech Commands with one clip on each list."""
    generator = np.random.default_rng(0)
    for name, seconds in (("7-1-0", 9), ("7-1-1", 1), ("12-1-0", 10), ("12-1-1", 1)):
        write(tmp_path / "speech" / f"{name}.flac", 0.1 * generator.standard_normal(seconds * RATE))
    clips = [f"{word}/{speaker}_nohash_0" for word in ("no", "yes") for speaker in "abc"]
    write_speech_commands(tmp_path / "words", clips, validation=["no/b_nohash_0"], test=["yes/c_nohash_0"])
    return EvaluationArguments(
        dataset_name=str(tmp_path / "speech"),
        speech_commands=str(tmp_path / "words"),
        crop_seconds=0.5,
        held_out_fraction=0.25,
    )


def make_evaluation(options):
    return EncoderEvaluation(tiny_stock("wavlm"), Wav2Vec2FeatureExtractor(), options)


def test_tested_seconds_are_not_trained_on(options):
    evaluation = make_evaluation(options)
    assert sorted(evaluation.utterances["speaker"]) == ["12", "7"]
    assert len(evaluation.train_clips) == 3 and len(evaluation.held_out_clips) == 1
    held_out = evaluation.held_out_clips[0]["seconds"]
    # Of both long utterances, the last two seconds are for tests of speakers.
    assert sum(evaluation.train_clips["seconds"]) == 21 - held_out - 2 * (2 if held_out < 2 else 1)


def test_every_encoder_is_held_against_the_teacher(options, monkeypatch):
    monkeypatch.setattr(encoder_evaluation, "word_accuracy", lambda model, *_: {"accuracy": 0.5})
    evaluation = make_evaluation(options)
    result = evaluation(evaluation.teacher)
    assert result.keys() == {"words", "speakers", "units"} and result["words"] == {"accuracy": 0.5}
    assert (result["speakers"]["classes"], result["speakers"]["test_clips"]) == (2, 4)
    assert 0 < result["units"]["purity"] <= 1
    assert result["units"]["frames"] == len(evaluation.teacher_units)


def test_tested_words_must_not_be_trained_on(options):
    options.dataset_name, options.librispeech = options.speech_commands, options.dataset_name
    options.crop_seconds, options.held_out_seed = 0.01, 1
    with pytest.raises(
        ValueError, match="clips of the validation and test lists .* Give a `dataset_name` without them"
    ):
        make_evaluation(options)
