"""Loss against size: table and picture."""

import json

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from hf_prunable import Measure
from hf_prunable.modeling.size import UnitCounts
from hf_prunable.pruning.fidelity import Fidelity
from hf_prunable.reporting.measurement import ModelSize, measure_dense, measure_size
from hf_prunable.reporting.provenance import Provenance
from hf_prunable.reporting.pruning_inputs import Calibration, PruningInputs
from hf_prunable.reporting.tradeoff_report import (
    TradeoffPoint,
    TradeoffReport,
    draw_tradeoff,
    format_tradeoff,
    measure_point,
)
from tests.helpers.one_shot_models import RAGGED
from tests.helpers.tiny_models import tiny_prunable


def point(target, removed, macs, loss):
    size = ModelSize(round(1_000_000 * (1 - removed)), round(1e9 * macs), 10.0)
    return TradeoffPoint(
        target, removed, size, 4 * size.num_parameters, Fidelity([1.0, 1 - loss], [0, loss], loss, 1234)
    )


@pytest.fixture
def report():
    inputs = PruningInputs(
        method="one_shot",
        command="hf-prunable tradeoff",
        model_name="m",
        family="wavlm",
        sampling_rate=16000,
        teacher_name="m",
        objective="distillation",
        units=["qk", "int"],
        steps={},
        seed=1,
        calibration=Calibration(20, 4.0, 20, 0),
    )
    points = [point(None, 0.0, 2.0, 0.0), point(0.3, 0.3004, 1.5, 0.01), point(0.6, 0.6, 1.1, 0.04)]
    provenance = Provenance({}, None, "Some CPU")
    return TradeoffReport(inputs, provenance, "parameters", ModelSize(1_000_000, 2_000_000_000, 10.0), points)


def test_the_table_is_exactly_this(report):
    table, note = format_tradeoff(report).split("\n\n")
    assert table == (
        "| Removed | Parameters | MACs, 10 s clip | Loss | Mean cosine | Checkpoint |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| before pruning | 1,000,000 (100.0 %) | 2 G (100.0 %) | 0.0000 | 1.0000 | 4.0 MB |\n"
        "| 30.0 % | 699,600 (70.0 %) | 1.5 G (75.0 %) | 0.0100 | 0.9950 | 2.8 MB |\n"
        "| 60.0 % | 400,000 (40.0 %) | 1.1 G (55.0 %) | 0.0400 | 0.9800 | 1.6 MB |"
    )
    assert note.startswith("One-shot pruning of qk, int, with statistics of 20 clips of 4 s, in one series of rounds.")
    assert "against the teacher on 1,234 frames of held-out audio" in note and "Measured on: Some CPU." in note


def test_the_record_is_json(report, tmp_path):
    values = json.loads(report.save(tmp_path).read_text())
    assert [entry["target"] for entry in values["points"]] == [None, 0.3, 0.6]
    assert values["dense"]["macs"] == 2_000_000_000 and values["points"][2]["fidelity"]["distillation_loss"] == 0.04


def test_both_panels_show_all_points(report, monkeypatch, tmp_path):
    draw_tradeoff(report, tmp_path / "tradeoff.png")
    assert imread(tmp_path / "tradeoff.png").std() > 0.05
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    draw_tradeoff(report, "tradeoff.png")
    left, right = drawn[0].axes
    for axes, parts in ((left, [1, 0.6996, 0.4]), (right, [1, 0.75, 0.55])):
        curve, marker = axes.lines
        assert list(curve.get_xdata()) == pytest.approx(parts) and list(curve.get_ydata()) == [0.0, 0.01, 0.04]
        assert curve.get_marker() == "." and list(marker.get_xdata()) == [1] and list(marker.get_ydata()) == [0]
        assert [text.get_text() for text in axes.texts] == ["dense"]
    assert left.get_xlabel() == "Parameters left (100 % = 1,000,000)"
    assert right.get_xlabel() == "Multiply-accumulates left (100 % = 2 G, 10 s clip)"
    report.points = report.points[1:]
    draw_tradeoff(report, "tradeoff.png")
    assert drawn[1].axes[0].texts[0].get_text() == "before pruning"


def test_a_point_counts_the_whole_checkpoint():
    model = tiny_prunable("wavlm", head="ctc", pruned_shape=RAGGED.to_dict())
    measure, fidelity = Measure("macs", 2.0), Fidelity([1.0], [0.0], 0.1, 5)
    found = measure_point(model, 0.5, measure, fidelity)
    assert found.size == measure_size(model, 2.0) and found.fidelity is fidelity and found.target == 0.5
    assert found.removed == measure.sparsity(model.config, UnitCounts.of(model.config.shape))
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    assert 0 <= found.checkpoint_bytes - 4 * model.num_parameters() <= buffers
    dense = measure_dense(model, 2.0)
    assert dense == measure_size(tiny_prunable("wavlm"), 2.0) and dense.num_parameters > found.size.num_parameters
