"""Model cards of runs: copied with their pictures, and only with a report."""

import pytest

from hf_prunable.reporting.model_card_parts import save_card
from model_cards.collect_card import collect_card
from tests.helpers.model_cards import pruning_card
from tests.reporting.test_pruning_report import make_report


def test_a_card_is_copied_with_its_pictures(tmp_path):
    folder, cards = tmp_path / "wavlm-28pct", tmp_path / "cards"
    folder.mkdir()
    with pytest.raises(ValueError, match="holds no card"):
        collect_card(folder, cards)
    save_card(pruning_card(make_report(model_name=str(tmp_path)), "wavlm-28pct"), folder)
    with pytest.raises(ValueError, match="no report of a run"):
        collect_card(folder, cards)
    make_report().save(folder)
    for name in ("shape.png", "sparsity_curve.png", "fidelity.png", "model.safetensors"):
        (folder / name).write_bytes(name.encode())
    copied = collect_card(folder, cards)
    assert copied == cards / "wavlm-28pct"
    assert {path.name for path in copied.iterdir()} == {"README.md", "shape.png", "sparsity_curve.png", "fidelity.png"}
    assert all(path.read_bytes() == (folder / path.name).read_bytes() for path in copied.iterdir())
    with pytest.raises(ValueError, match="is not empty"):
        collect_card(folder, cards)
