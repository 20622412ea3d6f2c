"""The benchmark of long recordings on a tiny model and noise."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from benchmarks import long_audio
from benchmarks.long_audio import join_clips
from tests.helpers.speech_files import write
from tests.helpers.tiny_models import tiny_prunable


pytest.importorskip("onnxruntime")


def test_errors_and_memory(tmp_path, command, monkeypatch):
    model = tiny_prunable("wavlm", feature_norm="layer", conv_stride=(20, 4, 2))
    model.save_pretrained(tmp_path / "model")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "model")
    for index in range(2):
        noise = 0.1 * np.random.default_rng(index).standard_normal(8000)
        write(tmp_path / "audio" / f"{index}.wav", noise, subtype="FLOAT")
    # The function itself is covered, its process is not started.
    monkeypatch.setattr(long_audio, "in_fresh_process", lambda function, *arguments: function(*arguments))

    lengths = ["--window_seconds", 0.1, 0.4, "--overlap_seconds", 0.02, "--context_seconds", 0.1]
    lengths += ["--lookahead_seconds", 0, 0.05, "--chunk_seconds", 0.1, "--padding_seconds", 0.1]
    paths = ["--model", tmp_path / "model", "--audio", tmp_path / "audio", "--output_dir", tmp_path / "out"]
    command(*paths, "--recordings", 2, "--recording_seconds", 0.4, *lengths)
    long_audio.main()
    text = (tmp_path / "out" / "long_audio.json").read_text()
    result = json.loads(text)
    assert str(tmp_path) not in text
    short, whole = result["windows"]
    assert short["last"] > 1e-3
    assert whole["last"] == whole["middle"] == 0
    assert [row["lookahead_seconds"] for row in result["streams"]] == [0, 0.05]
    assert all(row["last"] > 1e-3 for row in result["streams"])
    # With layer norms, the mask makes padding exact.
    (padding,) = result["padding"]
    assert padding["without_mask"] > 1e-3 and padding["with_mask"] < 1e-4
    assert list(result["peak_bytes"]) == ["0.1", "0.4"]
    table = (tmp_path / "out" / "long_audio.md").read_text()
    assert "| 0.1 s | 0.02 s | " in table and "Error of hidden state 1 | Error of hidden state 3" in table


def test_recordings_are_joined_in_order_of_the_names(tmp_path):
    for name, value in (("b.wav", 0.2), ("a.flac", 0.1), ("c.txt", 0.3)):
        (tmp_path / name).write_text(str(value))
    encoder = SimpleNamespace(
        sampling_rate=10, read=lambda path: np.full(6, float(Path(path).read_text()), np.float32)
    )
    first, second = join_clips(encoder, str(tmp_path), 2, 0.6)
    assert (first == np.float32(0.1)).all() and (second == np.float32(0.2)).all()
    with pytest.raises(ValueError, match="has 1.2 s of audio in flac and wav files; give a folder with 1.8 s"):
        join_clips(encoder, str(tmp_path), 3, 0.6)
