"""ONNX files where only numpy, soundfile and onnxruntime are installed: whole, in windows and as audio comes."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable import export_onnx
from tests.helpers.processes import ROOT, with_root
from tests.helpers.scripts import load_script
from tests.helpers.speech_files import RATE, write
from tests.helpers.tiny_models import tiny_prunable


onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
# One frame for 160 samples.
STRIDES = (20, 4, 2)
FRAME_SECONDS = 160 / RATE
BLOCKED = """
import runpy, sys
from tests.helpers.import_blocker import ImportBlocker
for package in ("torch", "transformers", "hf_prunable", "onnx", "scipy"):
    ImportBlocker(package).install()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def export(folder, feature_norm, normalize, head="base", **options):
    model = tiny_prunable("hubert", feature_norm=feature_norm, head=head, conv_stride=STRIDES)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    path = folder / "model.onnx"
    export_onnx(folder, path, check_seconds=(0.1,), latency_seconds=None, **options)
    return model, path


@pytest.fixture(scope="module")
def run_onnx():
    return load_script("examples/run_onnx.py")


@pytest.fixture(scope="module")
def with_group_norm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    return *export(folder, "group", True, hidden_states={0: "first", 2: "unit"}, input_name="audio"), folder


@pytest.fixture(scope="module")
def with_layer_norms(tmp_path_factory):
    return export(tmp_path_factory.mktemp("layer"), "layer", False, hidden_states={0: "first"})


def speech(seconds, seed=0):
    generator = np.random.default_rng(seed)
    return (0.3 + 0.1 * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


def test_equal_to_pytorch_without_this_package(with_group_norm, tmp_path):
    model, path, folder = with_group_norm
    write(tmp_path / "clip.wav", speech(0.5), subtype="FLOAT")
    arguments = [str(ROOT / "examples/run_onnx.py"), str(path), str(tmp_path / "clip.wav")]
    command = [sys.executable, "-c", BLOCKED, *arguments, "--output", str(tmp_path / "found.npz")]
    done = subprocess.run(command, env=with_root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name}: 50 x 24" for name in ("last_hidden_state", "first", "unit")]
    feature_extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    inputs = feature_extractor(speech(0.5), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = model(inputs["input_values"], output_hidden_states=True)
    found = np.load(tmp_path / "found.npz")
    for name, value in (("last_hidden_state", expected[0]), ("unit", expected.hidden_states[2])):
        np.testing.assert_allclose(found[name], value[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("seconds", (0.1, 0.25, 1.234))
def test_windows_of_convolutions_are_exact_without_a_group_norm(run_onnx, with_layer_norms, seconds):
    encoder = run_onnx.OnnxEncoder(str(with_layer_norms[1]))
    samples = speech(seconds)
    whole = encoder.whole(samples)
    # The position convolution sees 8 frames on each side.
    windows = encoder.in_windows(samples, 24 * FRAME_SECONDS, 8 * FRAME_SECONDS)
    np.testing.assert_allclose(windows["first"], whole["first"], atol=1e-5)
    assert windows["last_hidden_state"].shape == whole["last_hidden_state"].shape
    chunks = [samples[start : start + 500] for start in range(0, len(samples), 500)]
    parts = list(encoder.stream(chunks, 8 * FRAME_SECONDS, 8 * FRAME_SECONDS))
    np.testing.assert_allclose(np.concatenate([part["first"] for part in parts]), whole["first"], atol=1e-5)
    if seconds > 0.2:
        assert len(parts) > 3
        assert np.abs(windows["last_hidden_state"] - whole["last_hidden_state"]).max() > 1e-3


def test_a_group_norm_makes_windows_differ(run_onnx, with_group_norm):
    encoder = run_onnx.OnnxEncoder(str(with_group_norm[1]))
    samples = speech(0.6) * np.linspace(0.2, 2.0, round(0.6 * RATE), dtype=np.float32)
    whole, windows = encoder.whole(samples), encoder.in_windows(samples, 0.2, 4 * FRAME_SECONDS)
    assert np.abs(windows["first"] - whole["first"]).max() > 1e-2
    # One window that holds the recording is the whole.
    np.testing.assert_array_equal(encoder.in_windows(samples, 0.6, 0.05)["first"], whole["first"])
    # A stream that waits for all audio has its mean and variance.
    (last,) = encoder.stream([samples[:100], samples[100:]], 0.0, 10.0)
    np.testing.assert_allclose(last["first"], whole["first"], atol=1e-4)


def test_wrong_input(run_onnx, with_group_norm, tmp_path):
    encoder = run_onnx.OnnxEncoder(str(with_group_norm[1]))
    with pytest.raises(ValueError, match="Nothing is left of a window of 1 s without 0.5 s on each side"):
        encoder.in_windows(speech(2.0), 1.0, 0.5)
    with pytest.raises(ValueError, match="`overlap_seconds` is -1; it must be 0 or more"):
        encoder.in_windows(speech(2.0), 1.0, -1.0)
    with pytest.raises(ValueError, match="`lookahead_seconds` is -0.1; it must be 0 or more"):
        next(encoder.stream([speech(2.0)], 1.0, -0.1))
    with pytest.raises(ValueError, match="The clip has 20 samples; the model needs 130 or more"):
        encoder.whole(speech(2.0)[:20])
    write(tmp_path / "slow.wav", speech(0.1), rate=8000)
    with pytest.raises(ValueError, match="slow.wav has 8000 Hz; the model takes 16000. Resample it first"):
        encoder.read(str(tmp_path / "slow.wav"))
    path = tmp_path / "model.onnx"
    shutil.copy(with_group_norm[1], path)
    without_metadata = onnx.load(path)
    del without_metadata.metadata_props[:]
    onnx.save(without_metadata, path)
    with pytest.raises(ValueError, match="takes a mask, or does not say whether audio is normalised"):
        run_onnx.OnnxEncoder(str(path))
    _, path = export(tmp_path / "classifier", "group", True, "classification")
    with pytest.raises(ValueError, match="logits does not have one vector for each frame"):
        run_onnx.OnnxEncoder(str(path)).in_windows(speech(2.0), 1.0, 0.1)


def test_wrong_input_of_the_program(run_onnx, with_group_norm, tmp_path, monkeypatch, capsys):
    write(tmp_path / "slow.wav", speech(0.1), rate=8000)
    (tmp_path / "text.wav").write_text("no audio")
    for name, message in {"slow.wav": "has 8000 Hz", "text.wav": "Format not recognised"}.items():
        monkeypatch.setattr(sys, "argv", ["run_onnx.py", str(with_group_norm[1]), str(tmp_path / name)])
        with pytest.raises(SystemExit, match="2"):
            run_onnx.main()
        assert message in capsys.readouterr().err
