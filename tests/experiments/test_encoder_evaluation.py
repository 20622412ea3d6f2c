"""Evaluation of encoders beside their teacher, for every family."""

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from experiments.encoder_evaluation import EncoderEvaluation
from experiments.split_audio import SplitAudio
from tests.helpers.speech_files import RATE, write, write_speech_commands
from tests.helpers.tiny_models import tiny_prunable


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of speech, and folder of words."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index in range(4):
        write(folder / "speech" / f"{index}.wav", 0.1 * generator.standard_normal(RATE * (index + 1) // 2))
    clips = [f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in "abcde" for take in (0, 1)]
    words = write_speech_commands(folder / "words", clips, ["no/b_nohash_0"], ["yes/c_nohash_0"], seconds=0.15)
    return str(folder / "speech"), str(words)


@pytest.mark.parametrize(("family", "norm_order"), [("wavlm", "post"), ("hubert", "post"), ("wav2vec2", "pre")])
def test_a_teacher_and_its_student(data, family, norm_order):
    feature_extractor = Wav2Vec2FeatureExtractor()
    teacher = tiny_prunable(family, norm_order)
    audio = SplitAudio(data[0], feature_extractor, 0.25, 2)
    evaluation = EncoderEvaluation(teacher, feature_extractor, audio, data[1])
    own = evaluation(teacher)
    assert own["loss"] == pytest.approx(0, abs=1e-5) and own["units"]["agreement"] == 1
    for task, clips in (("words", 20), ("speakers", 20)):
        assert own[task]["correct"] == own[task]["drop_in_correct"] and len(own[task]["correct"]) == clips
        assert sum(own[task]["group_sizes"]) == clips
    # Half a second and one and a half, of frames of 20 samples.
    assert [round(size / 198) for size in own["units"]["group_sizes"]] == [2, 6]
    student = evaluation(tiny_prunable(family, norm_order, seed=1, num_hidden_layers=2))
    assert student["loss"] > 0.1 and student["units"]["agreement"] < 0.9
    assert sum(student["units"]["agreeing_frames"]) == pytest.approx(
        student["units"]["agreement"] * sum(student["units"]["group_sizes"])
    )
    assert len(student["words"]["drop_in_correct"]) == 20


def test_one_utterance_gives_no_interval(data):
    audio = SplitAudio(data[0], Wav2Vec2FeatureExtractor(), 0.25, 4)
    with pytest.raises(ValueError, match="One clip is held out, but intervals need two"):
        EncoderEvaluation(tiny_prunable("wavlm"), Wav2Vec2FeatureExtractor(), audio, data[1])
