"""The keyword-spotting example: four models from tiny ones, their table and their picture."""

import sys
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from matplotlib.image import imread
from transformers import Wav2Vec2FeatureExtractor

from hf_prunable.cli.main import main
from hf_prunable.data.keyword_task import KEYWORDS
from tests.helpers.scripts import load_script
from tests.helpers.speech_files import RATE, tone, write, write_speech_commands
from tests.helpers.tiny_models import tiny_stock


LISTS = {"validation": "b", "test": "c"}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A checkpoint, Speech Commands and speech without labels, in the working directory."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    tiny_stock("hubert", conv_stride=(20, 4, 2), mask_time_prob=0.0, mask_feature_prob=0.0).save_pretrained(
        tmp_path / "model"
    )
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "model")
    names = [f"{word}/{speaker}_nohash_0" for word in (*KEYWORDS, "cat") for speaker in "abcdefg"]
    lists = {split: [name for name in names if f"/{speaker}_" in name] for split, speaker in LISTS.items()}
    write_speech_commands(tmp_path / "words", names, **lists)
    write(tmp_path / "words/_background_noise_/noise.wav", tone(12.0))
    generator = np.random.default_rng(0)
    for index in range(6):
        write(tmp_path / f"speech/{index}.wav", 0.1 * generator.standard_normal(RATE))
    return tmp_path


def test_four_models_are_trained_and_compared(sources, monkeypatch, capsys):
    commands = []

    def run(command, check):
        assert command[:3] == [sys.executable, "-m", "hf_prunable"] and check
        commands.append(command[3:])
        # Its crops are of 4 s, and the clips here are not.
        shorter = (
            ["--calibration_seconds", "0.5", "--calibration_clips", "8", "--latency_seconds", "0.2"]
            if command[3] == "prune"
            else []
        )
        main([*command[3:], *shorter])

    example = load_script("examples/keyword_spotting.py")
    monkeypatch.setattr(example, "subprocess", SimpleNamespace(run=run))
    arguments = ["--model_name_or_path", "model", "--dataset_name", "words", "--audio", "speech", "--num_layers", "1"]
    arguments += ["--target_sparsity", "0.3", "--output_dir", "keywords"]
    arguments += ["--use_cpu", "--disable_tqdm", "--max_steps", "1", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["keyword_spotting.py", *arguments])
    example.main()
    assert [command[0] for command in commands] == ["prune"] + 4 * ["finetune-speech-commands"]
    table = (sources / "keywords/comparison.md").read_text()
    assert table.strip() in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:6]]
    names = ["full", "truncated, 1 layers", "one-shot, 30 % removed", "both, 30 % removed, 1 layers"]
    assert [row[0] for row in rows] == names
    full, truncated, pruned, both = (int(row[1].replace(",", "")) for row in rows)
    assert pruned <= 0.7 * full and both < min(truncated, pruned)
    assert imread(sources / "keywords/comparison.png").shape[2] == 4

    # Complete models are not trained again.
    commands.clear()
    example.main()
    assert not commands
