"""The demonstration speech: what the clips are like, that a seed fixes them, and how a folder comes to be."""

import csv
import sys

import numpy as np
import pytest
import soundfile

from hf_prunable.data import synthetic_speech


pytest.importorskip("espeakng_loader")
NUM_CLIPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic_speech.make_speech(tmp_path_factory.mktemp("speech") / "demo", num_clips=NUM_CLIPS)


def read_all(folder):
    return [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.glob("*.flac"))]


def test_clips_are_speech_like_16_kilohertz_mono(folder):
    files = sorted(folder.glob("*.flac"))
    assert len(files) == NUM_CLIPS
    for path in files:
        header = soundfile.info(path)
        assert (header.samplerate, header.channels, header.subtype) == (16000, 1, "PCM_16")
        assert 2.0 <= header.duration <= 6.0
    for samples in read_all(folder):
        assert 0.02 < np.sqrt(np.mean(samples**2)) < 0.5
        assert np.abs(samples).max() < 1.0
    with open(folder / "metadata.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == [path.name for path in files]
    assert len({row["voice"] for row in rows}) > 1
    assert len({row["text"] for row in rows}) == NUM_CLIPS


def test_seed_fixes_the_samples(folder, tmp_path):
    again = read_all(synthetic_speech.make_speech(tmp_path / "again", num_clips=NUM_CLIPS))
    for first, second in zip(read_all(folder), again, strict=True):
        np.testing.assert_array_equal(first, second)
    other = read_all(synthetic_speech.make_speech(tmp_path / "other", num_clips=1, seed=1))
    assert not np.array_equal(other[0], again[0])


def test_every_voice_variant_and_language_speaks():
    synthesizer = synthetic_speech.SpeechSynthesizer(seed=0)
    for voice, _ in synthetic_speech.VOICES:
        for variant in synthetic_speech.VARIANTS:
            assert synthesizer.has_voice(f"{voice}+{variant}"), (voice, variant)
    generator = np.random.default_rng(0)
    for language in synthetic_speech.LANGUAGES:
        assert "{" not in synthetic_speech.make_sentence(generator, language)
    assert {language for _, language in synthetic_speech.VOICES} == set(synthetic_speech.LANGUAGES)


def test_complete_folder_is_used_again(folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert synthetic_speech.make_speech(folder, num_clips=NUM_CLIPS) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_folder_of_other_settings_is_refused(folder, tmp_path):
    with pytest.raises(FileExistsError, match="'num_clips': 5.*Delete it or give another folder"):
        synthetic_speech.make_speech(folder, num_clips=5)
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="its settings: None"):
        synthetic_speech.make_speech(tmp_path / "mine", num_clips=5)


def test_interruption_leaves_no_folder(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic_speech.soundfile, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthetic_speech.make_speech(tmp_path / "demo", num_clips=1)
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match="pip install espeakng-loader"):
        synthetic_speech.make_speech(tmp_path / "demo", num_clips=1)


def test_no_clips_is_refused(tmp_path):
    with pytest.raises(ValueError, match="num_clips is 0"):
        synthetic_speech.make_speech(tmp_path / "demo", num_clips=0)
