"""Changes of convexity by fine-tuning."""

import json

from matplotlib.image import imread

from experiments import convexity_changes
from experiments.convexity_changes import format_changes
from tests.helpers.layer_profiles import profile


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


def test_values_of_classes_are_kept_apart(tmp_path, monkeypatch):
    by_task = {"word": profile([0.9, 0.2, 0.4]), "speaker": profile([0.1, 0.6, 0.2], "speaker")}
    monkeypatch.setattr(convexity_changes, "profile_models", lambda options: {"pretrained": by_task, "words": by_task})
    command = f"convexity_changes --models pretrained=a words=b --words c --speakers d --output_dir {tmp_path}"
    monkeypatch.setattr("sys.argv", command.split())
    convexity_changes.main()
    summary, raw = (json.loads((tmp_path / name).read_text()) for name in ("changes.json", "raw/changes.json"))
    labels = raw["words"]["word"]["labels"]["word"]
    assert labels["convexity"].pop("per_class") == {"a": [0.9, 0.2, 0.4], "b": [0.9, 0.2, 0.4]}
    del labels["permuted_convexity"]
    assert summary["words"]["word"]["labels"]["word"] == labels
    assert (tmp_path / "changes.md").read_text() == format_changes({"pretrained": by_task, "words": by_task})
    assert imread(tmp_path / "changes.png").std() > 0.03
