"""The benchmarks of truncation: every depth against the choice, and what fine-tuning does to convexity."""

import io

import datasets
import numpy as np
import pytest
import soundfile
from matplotlib.image import imread
from transformers import Wav2Vec2FeatureExtractor

from experiments.convexity_changes import format_changes
from experiments.depths import draw_depths, format_depths
from experiments.layer_profiles import format_profiles, profile_task
from experiments.scored_clips import ScoredClipsArguments
from experiments.speaker_segments import segment_splits
from hf_prunable.data.audio import audio_dataset
from hf_prunable.data.speech_commands_tasks import load_speech_commands_task
from hf_prunable.finetuning.classifier import FinetunedResult
from hf_prunable.truncation.layer_choice import LayerChoice
from hf_prunable.truncation.layer_profile import LabelProfile, LayerProfile, LayerScores
from tests.helpers.speech_files import tone, write_speech_commands
from tests.helpers.tiny_models import tiny_stock


RATE = 16000
LISTS = ("validation", "test")


def profile(values, name="word"):
    scores = LayerScores(values, [0.01] * len(values), {})
    return LayerProfile(len(values) - 1, 40, 10, None, 42, {name: LabelProfile(convexity=scores)})


def result(num_layers, accuracy):
    metrics = {"accuracy": accuracy, "accuracy_lower": accuracy - 0.05, "accuracy_upper": accuracy + 0.04}
    return FinetunedResult(num_layers, 42, metrics, [], 2.0, 1.5 * num_layers, [])


def test_depths_side_by_side(tmp_path):
    results = [result(1, 0.5), result(2, 0.8), result(3, 0.75)]
    choices = {
        "convexity": LayerChoice(2, "convexity"),
        "cka": LayerChoice(3, "cka"),
        "probe": LayerChoice(3, "probe"),
    }
    lines = format_depths(results, choices).splitlines()
    assert lines[2:] == [
        "| 1 | 0.5000 (0.4500 to 0.5400) | 1.5 |  |",
        "| 2 | 0.8000 (0.7500 to 0.8400) | 3.0 | convexity, (best) |",
        "| 3 | 0.7500 (0.7000 to 0.7900) | 4.5 | cka, probe |",
    ]
    draw_depths(profile([0.2, 0.4, 0.6, 0.5]), results, choices, tmp_path / "depths.png")
    assert imread(tmp_path / "depths.png").std() > 0.03


def test_changes_are_from_the_first_model():
    profiles = {
        "pretrained": {"word": profile([0.9, 0.2, 0.4]), "speaker": profile([0.1, 0.6, 0.2], "speaker")},
        "words": {"word": profile([0.9, 0.4, 0.8]), "speaker": profile([0.1, 0.5, 0.1], "speaker")},
    }
    assert format_changes(profiles).splitlines()[2:] == [
        "| word | pretrained | 0.400 | 0.300 |",
        "| word | words | 0.800 (+0.400) | 0.600 (+0.300) |",
        "| speaker | pretrained | 0.200 | 0.400 |",
        "| speaker | words | 0.100 (-0.100) | 0.300 (-0.100) |",
    ]


@pytest.fixture
def utterances(tmp_path):
    rows = []
    for speaker, seconds in (("7", 8.5), ("12", 13.2)):
        path = tmp_path / f"{speaker}-1-0.flac"
        soundfile.write(path, np.linspace(-0.5, 0.5, int(seconds * RATE)), RATE)
        rows.append({"audio": {"path": str(path), "bytes": None}, "speaker": speaker})
    return rows


def test_segments_make_a_speaker_task(utterances, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = segment_splits(utterances)
    folder = tmp_path / "segments"
    folder.mkdir()
    for split, rows in splits.items():
        datasets.Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    task, _ = load_speech_commands_task(folder, "speaker", sampling_rate=RATE, min_clips_per_speaker=5)
    counts = {split: [part["speaker"][:].count(speaker) for speaker in ("7", "12")] for split, part in task.items()}
    assert counts == {"train": [5, 9], "validation": [1, 1], "test": [2, 2]}
    # The ramp rises: the test segments are the last ones.
    last = soundfile.read(io.BytesIO(splits["test"][1]["audio"]["bytes"]))[0]
    assert last[-1] == pytest.approx(0.5, abs=1e-3) and len(last) == RATE


def test_scored_clips_of_chosen_words(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = [
        f"{word}/{speaker}_nohash_{take}" for word in ("no", "up", "yes") for speaker in "ab" for take in range(6)
    ]
    held_out = {split: [f"{word}/b_nohash_{take}" for word in ("no", "up", "yes")] for take, split in enumerate(LISTS)}
    write_speech_commands(tmp_path / "clips", names, **held_out)
    clips = str(tmp_path / "clips")
    options = ScoredClipsArguments(
        words=clips, speakers=clips, output_dir="", min_clips_per_speaker=6, only_words=["yes", "no"]
    )
    loaded = options.load(RATE)
    assert set(loaded["word"]["word"][:]) == {"no", "yes"}
    # The speakers keep all their clips.
    assert len(loaded["speaker"]) > len(loaded["word"])


def test_profiles_of_a_task(tmp_path):
    generator = np.random.default_rng(0)
    paths = []
    for number in range(16):
        noise = 0.01 * generator.standard_normal(RATE // 20 + 40 * (number % 3))
        path = tmp_path / f"{number}.wav"
        soundfile.write(
            path, tone(0.05 + 0.0025 * (number % 3), frequency=300.0 if number < 8 else 3000.0) + noise, RATE
        )
        paths.append(path)
    clips = audio_dataset(paths, word=["low"] * 8 + ["high"] * 8)
    feature_extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False)
    result = profile_task(tiny_stock("hubert"), feature_extractor, clips, "word", [3, 2])
    assert list(result.profiles) == [3, 2] and (result.num_clips, result.num_classes) == (16, 2)
    assert result.largest_difference < 1e-5 and 0 <= result.layers_in_band <= 4
    assert len(result.profiles[3].labels["word"].permuted_convexity) == 20
    assert result.profiles[3].labels["word"].convexity.values[1] > 0.9
    table = format_profiles({"word": result})
    assert "| word | 16 | 2 | convexity, 3 neighbours |" in table and "| convexity, 2 neighbours |" in table
    assert "at most; a further permutation of the labels lies in the 95 % band of 20 at" in table
