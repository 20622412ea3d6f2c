"""The examples at a small size: what they print and what they leave."""

import sys

import datasets
import pytest
from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor, pipeline

from tests.helpers.fresh_processes import ragged
from tests.helpers.scripts import load_script
from tests.helpers.speech_files import tone, write, write_speech_commands


# One frame for 160 samples.
STRIDES = (20, 4, 2)
LISTS = {"validation": "b", "test": "c"}
SHORT = ["--max_steps", "2", "--use_cpu", "true", "--disable_tqdm", "true", "--report_to", "none"]


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    ragged("wavlm", conv_stride=STRIDES, layerdrop=0.0).save_pretrained(tmp_path / "pruned")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "pruned")
    return tmp_path / "pruned"


@pytest.fixture
def run(monkeypatch):
    def run_example(name, **options):
        arguments = [part for option, value in options.items() for part in (f"--{option}", str(value))]
        monkeypatch.setattr(sys, "argv", [name, *arguments, *(SHORT if name.startswith("finetune") else [])])
        load_script(f"examples/{name}.py").main()

    return run_example


def test_finetune_ctc(run, checkpoint, tmp_path):
    texts = {"a.wav": "cab", "b.wav": "A b", "c.wav": "bac"}
    for file in texts:
        write(tmp_path / "speech" / file, tone(0.5))
    rows = "".join(f"{file},{text}\n" for file, text in texts.items())
    (tmp_path / "speech" / "metadata.csv").write_text(f"file_name,text\n{rows}")
    folder = tmp_path / "ctc"
    run("finetune_ctc", model_name_or_path=checkpoint, dataset_name=tmp_path / "speech", output_dir=folder)
    recognize = pipeline("automatic-speech-recognition", model=str(folder))
    # Letters of both cases, blank, unknown and the word boundary.
    assert recognize.model.config.vocab_size == 7
    # It has hardly learned anything, and may say that it does not know.
    assert set(recognize(tone(0.5))["text"].replace("<unk>", "")) <= set("Aabc ")


def test_finetune_lora(run, checkpoint, tmp_path, capsys):
    names = [f"{word}/{speaker}_nohash_{take}" for word in ("no", "yes") for speaker in "abc" for take in range(2)]
    held_out = {split: [f"{word}/{speaker}_nohash_0" for word in ("no", "yes")] for split, speaker in LISTS.items()}
    write_speech_commands(tmp_path / "clips", names, **held_out)
    folder = tmp_path / "words"
    run("finetune_lora", model_name_or_path=checkpoint, dataset_name=tmp_path / "clips", output_dir=folder)
    printed = capsys.readouterr().out
    assert "Test loss: " in printed and "Test accuracy: " in printed
    model = AutoModelForAudioClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert not [name for name in model.state_dict() if "lora" in name]


def test_export_and_quantize(run, checkpoint, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    write(tmp_path / "clip.wav", tone(0.3))
    run(
        "export_and_quantize",
        model_name_or_path=checkpoint,
        path=tmp_path / "model.onnx",
        audio=tmp_path / "clip.wav",
        seconds=0.2,
    )
    printed = capsys.readouterr().out
    assert (tmp_path / "model.onnx").stat().st_size > 0
    for name in ("PyTorch", "onnxruntime", "clip.wav, 0.3 s: ", "float32", "int8", "Measured with 0.2 s"):
        assert name in printed
