"""The examples at a small size: what they print and what they leave."""

import sys
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor, pipeline

from hf_prunable.cli.main import main
from hf_prunable.reporting.measurement import measure_size
from tests.helpers.fresh_processes import ragged
from tests.helpers.scripts import load_script
from tests.helpers.speech_files import RATE, tone, write, write_speech_commands
from tests.helpers.tiny_models import tiny_stock


# One frame for 160 samples.
STRIDES = (20, 4, 2)
LISTS = {"validation": "b", "test": "c"}
WITHOUT_TRAINING = ("export_and_quantize",)
SHORT = ["--max_steps", "2", "--use_cpu", "true", "--disable_tqdm", "true", "--report_to", "none"]


def save_stock(family, folder):
    tiny_stock(family, conv_stride=STRIDES, mask_time_prob=0.0, mask_feature_prob=0.0).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)


def noise(seconds):
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


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
        monkeypatch.setattr(sys, "argv", [name, *arguments, *(SHORT if name not in WITHOUT_TRAINING else [])])
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


def test_finetune_lora_after_one_shot_pruning(run, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    save_stock("hubert", tmp_path / "dense")
    names = [f"{word}/{speaker}_nohash_0" for word in ("no", "yes") for speaker in "abc"]
    held_out = {split: [f"{word}/{speaker}_nohash_0" for word in ("no", "yes")] for split, speaker in LISTS.items()}
    write_speech_commands(tmp_path / "clips", names, **held_out)
    # 200 crops of 4 s.
    write(tmp_path / "speech/noise.wav", noise(801.0))
    options = {"model_name_or_path": tmp_path / "dense", "dataset_name": tmp_path / "clips"}
    with pytest.raises(ValueError, match="Give both or neither"):
        run("finetune_lora", **options, target_sparsity=0.3, output_dir=tmp_path / "words")
    run("finetune_lora", **options, audio=tmp_path / "speech", target_sparsity=0.3, output_dir=tmp_path / "words")
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "words")
    assert measure_size(model).num_parameters <= 0.7 * model.config.dense_num_parameters
    assert model.config.id2label == {0: "no", 1: "yes"}


def test_own_classes(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    save_stock("wavlm", tmp_path / "dense")
    for name, frequency in {"low": 300.0, "high": 3000.0}.items():
        for take in range(12):
            write(
                tmp_path / f"classes/{name}/{take}.wav",
                tone(0.2 + take / 100, frequency=frequency) + noise(0.2 + take / 100),
            )
    folder = tmp_path / "classifier"
    run("own_classes", model_name_or_path=tmp_path / "dense", dataset_name=tmp_path / "classes", output_dir=folder)
    printed = capsys.readouterr().out
    assert "Keeping " in printed and "(2 clips, 2 classes)" in printed
    classify = pipeline("audio-classification", model=str(folder))
    assert {scored["label"] for scored in classify(tone(0.3))} == {"low", "high"}
    assert classify.model.config.architectures == ["WavLMForSequenceClassification"]


def test_prune_and_publish(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    save_stock("wavlm", tmp_path / "dense")
    for index in range(6):
        write(tmp_path / f"speech/{index}.wav", noise(1.0))
    example = load_script("examples/prune_and_publish.py")
    pushed = []

    def prune(command, check):
        assert command[:3] == [sys.executable, "-m", "hf_prunable"] and check
        main([*command[3:], "--calibration_seconds", "0.5", "--calibration_clips", "8", "--latency_seconds", "0.2"])

    def push(folder, repo_id, private):
        pushed.append((folder.name, repo_id, private))
        return SimpleNamespace(repo_url=f"https://hub/{repo_id}")

    monkeypatch.setattr(example, "subprocess", SimpleNamespace(run=prune))
    monkeypatch.setattr(example, "push_folder", push)
    options = [
        "--model_name_or_path",
        str(tmp_path / "dense"),
        "--dataset_name",
        str(tmp_path / "speech"),
        "--use_cpu",
    ]
    options += ["--disable_tqdm", "--output_dir", str(tmp_path / "smaller"), "--hub_model_id", "org/smaller"]
    arguments = ["prune_and_publish.py", *options, "--min_similarity", "0.5", "--target_sparsity", "0.2", "0.4"]
    monkeypatch.setattr(sys, "argv", arguments)
    example.main()
    # Both are near enough, and the second is smaller.
    assert pushed == [("sparsity-0.4", "org/smaller", None)]
    assert "The card is " in capsys.readouterr().out
    assert (tmp_path / "smaller/sparsity-0.4/README.md").is_file()
    with pytest.raises(SystemExit, match="No model reaches a similarity of 1.5"):
        example.choose(tmp_path / "smaller", 1.5)


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
