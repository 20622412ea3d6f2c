"""Layer profiles of a task."""

import json

import numpy as np
import soundfile
from matplotlib.image import imread
from transformers import Wav2Vec2FeatureExtractor

from experiments import layer_profiles
from experiments.layer_profiles import TaskProfiles, format_profiles, profile_task
from hf_prunable.data.audio import audio_dataset
from tests.helpers.layer_profiles import complete_profile
from tests.helpers.speech_files import RATE, tone
from tests.helpers.tiny_models import tiny_stock


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
    assert "| word | 16 | 2 | convexity, 3 neighbors |" in table and "| convexity, 2 neighbors |" in table
    assert "permutation of the labels lies in the 95 % band of 20 permutations at" in table


def test_values_of_classes_and_permutations_are_kept_apart(tmp_path, monkeypatch):
    scores = complete_profile([0.2, 0.4, 0.6])
    scores.labels["word"].permuted_convexity = [[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]
    tiny_stock("hubert").save_pretrained(tmp_path / "model")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(layer_profiles.ProfileArguments, "load", lambda options, sampling_rate: {"word": None})
    monkeypatch.setattr(layer_profiles, "profile_task", lambda *_: TaskProfiles({10: scores}, 40, 2, 1e-6, 3))
    command = f"layer_profiles --model {tmp_path / 'model'} --words a --speakers b --n_neighbors 10"
    monkeypatch.setattr("sys.argv", [*command.split(), "--output_dir", str(tmp_path)])
    layer_profiles.main()
    names = ("layer_profiles.json", "raw/layer_profiles.json")
    summary, raw = (json.loads((tmp_path / name).read_text())["profiles"]["word"]["10"] for name in names)
    assert len(raw["labels"]["word"]["permuted_convexity"]) == 2 and "per_class" in raw["labels"]["word"]["convexity"]
    assert "permuted_convexity" not in summary["labels"]["word"]
    assert summary["labels"]["word"]["convexity"] == {"values": [0.2, 0.4, 0.6], "standard_errors": [0.01] * 3}
    assert summary["cka"] == raw["cka"] == [0.2, 0.4, 1.0]
    assert "| word | 40 | 2 | convexity, 10 neighbors | 2 | 2 |" in (tmp_path / "layer_profiles.md").read_text()
    assert imread(tmp_path / "layer_profiles.png").std() > 0.03
