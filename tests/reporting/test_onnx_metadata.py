"""What an ONNX file says of audio, frames and origin."""

import json

import pytest
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.modeling.size import count_frames
from hf_prunable.reporting.onnx_metadata import describe_audio, describe_frames, describe_origin, onnx_metadata
from tests.helpers.tiny_models import ALL_FAMILIES, tiny_config, tiny_prunable


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_frames(family):
    config = tiny_config(family, prunable=True)
    frames = describe_frames(config)
    stride, length = int(frames["frame_stride"]), int(frames["frame_length"])
    lengths = [length - 1, length, length + stride - 1, length + stride]
    assert [count_frames(config, samples) for samples in lengths] == [0, 1, 1, 2]
    assert frames["feature_norm"] == ("layer" if family == "data2vec_audio" else "group")


def test_audio(tmp_path, caplog):
    assert describe_audio(tmp_path) == {"sampling_rate": "16000"}
    assert "no preprocessor_config.json" in caplog.text
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=False).save_pretrained(tmp_path)
    assert describe_audio(tmp_path) == {
        "sampling_rate": "8000",
        "do_normalize": "false",
        "normalization_epsilon": "1e-07",
    }
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": "fast"}')
    with pytest.raises(ValueError, match="has the sampling rate 'fast'; it must be an integer above 0"):
        describe_audio(tmp_path)


def test_origin_without_folders(tmp_path, caplog):
    folder = tmp_path / "pruned"
    folder.mkdir()
    assert describe_origin(folder) == {"source": "pruned"}
    report = folder / "pruning_report.json"
    report.write_text(json.dumps({"inputs": {"model_name": "/home/user/models/wavlm", "method": "one_shot"}}))
    assert describe_origin(folder) == {"source": "pruned", "base_model": "wavlm", "method": "one_shot"}
    report.write_text(json.dumps({"inputs": {"model_name": "microsoft/wavlm-base", "method": 3}}))
    assert describe_origin(folder) == {"source": "pruned", "base_model": "microsoft/wavlm-base"}
    assert not caplog.text
    for broken in ("[]", "{", '{"inputs": 3}'):
        report.write_text(broken)
        assert describe_origin(folder) == {"source": "pruned"}
        assert "pruning_report.json" in caplog.text
        caplog.clear()


def test_all_metadata_are_texts(tmp_path):
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    metadata = onnx_metadata(tiny_prunable("hubert"), tmp_path, "AutoModel", {3: "unit12"})
    assert all(isinstance(text, str) for pair in metadata.items() for text in pair)
    assert json.loads(metadata["hidden_states"]) == {"3": "unit12"}
    assert metadata["frames_per_second"] == "800" and metadata["model_type"] == "hubert"
    assert metadata["do_normalize"] == "true" and metadata["num_layers"] == "3"
