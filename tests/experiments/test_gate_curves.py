"""Curves of gates during training."""

import json

from experiments import gate_curves
from experiments.gate_curves import draw_gate_curves


def test_gate_curves_are_drawn(tmp_path):
    history = [
        {"stage": 1, "step": step, "distillation_loss": 1.0, "expected_sparsity": 0.1, "target_sparsity": 0.2}
        for step in (1, 2)
    ]
    draw_gate_curves({"learned": history, "one stage": history}, tmp_path / "gates.png")
    assert (tmp_path / "gates.png").stat().st_size > 1000


def test_results_are_read_from_files(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(gate_curves, "draw_gate_curves", lambda histories, path: drawn.append((histories, path)))
    path = tmp_path / "gates_without_ste_0.72_seed42.json"
    path.write_text(json.dumps({"row": "gates_without_ste", "history": [{"stage": 1}]}))
    monkeypatch.setattr("sys.argv", ["gate_curves", "--results", str(path), "--picture", "gates.png"])
    gate_curves.main()
    assert drawn == [({"gates as in the paper, without STE": [{"stage": 1}]}, "gates.png")]
