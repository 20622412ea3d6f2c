"""Pictures of runs: what is on them."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from hf_prunable import AttentionShape, LayerShape, PrunableWavLMConfig, PrunedShape
from hf_prunable.reporting import pictures
from hf_prunable.reporting.pictures import draw_confusion, draw_shape, draw_sparsity_curve
from tests.helpers.tiny_models import tiny_prunable
from tests.reporting.test_pruning_report import HISTORY


def pixels(path):
    height, width, _ = imread(path).shape
    return width, height


@pytest.mark.parametrize(
    ("num_layers", "num_heads", "size"), [(12, 12, (1410, 1170)), (24, 16, (2490, 1350)), (3, 4, (1110, 1020))]
)
def test_picture_of_a_shape(tmp_path, num_layers, num_heads, size):
    config = PrunableWavLMConfig(
        hidden_size=num_heads * 16, num_attention_heads=num_heads, num_hidden_layers=num_layers, intermediate_size=96
    )
    dense = PrunedShape.dense(config)
    layers = (LayerShape(None, None), LayerShape(AttentionShape((0, 2), (0, 5), (16, 3)), 0), *dense.layers[2:])
    draw_shape(PrunedShape((7, *dense.conv_channels[1:]), layers), config, tmp_path / "shape.png")
    # Older versions of matplotlib round half a pixel down.
    assert pixels(tmp_path / "shape.png") == pytest.approx(size, abs=1)
    assert imread(tmp_path / "shape.png")[..., :3].std() > 0.1


def test_narrow_bias_only_and_removed_blocks_look_different(tmp_path):
    config = tiny_prunable("wavlm").config
    dense = PrunedShape.dense(config)
    pictures_of = []
    for attention in (AttentionShape((0,), (0,), (1,)), AttentionShape((), (), ()), None):
        shape = dataclasses.replace(dense, layers=(*dense.layers[:2], LayerShape(attention, 40)))
        draw_shape(shape, config, tmp_path / "shape.png")
        # Below the title, which names the parameters.
        pictures_of.append(imread(tmp_path / "shape.png")[60:])
    narrow, bias, gone = pictures_of
    assert (narrow != bias).any(-1).mean() > 0.02 and (bias != gone).any(-1).mean() > 0.02


def test_picture_of_the_sparsity(tmp_path):
    for name, history in (("two.png", HISTORY), ("one.png", HISTORY[:2]), ("none.png", [])):
        draw_sparsity_curve(history, tmp_path / name)
        assert pixels(tmp_path / name) == (1200, 825)
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in ("two", "one", "none")}) == 3


@pytest.fixture
def figures(monkeypatch):
    """Figures that were drawn, instead of files."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    return drawn


@pytest.mark.parametrize(
    ("losses", "label"),
    [
        (("distillation_loss",), "Distillation loss"),
        (("task_loss",), "Task loss"),
        (("distillation_loss", "task_loss"), "Loss"),
    ],
)
def test_the_losses_of_the_objective_are_drawn(figures, losses, label):
    history = [{"step": step, "stage": 1, "target_sparsity": 0.1} | dict.fromkeys(losses, 0.5) for step in (1, 2)]
    # An evaluation makes no gap.
    history.insert(1, {"step": 1, "stage": 1, "eval_loss": 0.7})
    draw_sparsity_curve(history, "curve.png", "multiply-accumulates of a 10 s clip")
    top, bottom = figures[0].axes
    assert top.get_ylabel() == "Sparsity of encoder\nmultiply-accumulates of a 10 s clip"
    assert (bottom.get_xlabel(), bottom.get_ylabel()) == ("Optimizer step", label)
    assert [line.get_ydata().tolist() for line in bottom.lines] == [[0.5, 0.5]] * len(losses)


def test_axes_of_the_confusion_matrix(figures):
    draw_confusion([0, 1, 1], [0, 1, 0], ["no", "yes"], "confusion.png")
    axes = figures[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted label", "True label")
    assert axes.images[0].get_array().tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_counts_and_empty_classes_of_the_confusion_matrix(figures):
    draw_confusion([0, 0, 2], [0, 2, 2], ["no", "up", "yes"], "confusion.png")
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no (2)", "up (no clip)", "yes (1)"]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "1", (2, 0): "1", (2, 2): "1"}
    (empty,) = axes.patches
    assert empty.get_y() == 0.5 and empty.get_height() == 1 and empty.get_hatch()


def test_stages_follow_each_other():
    assert pictures._continuous_steps(HISTORY) == ([100, 200, 300], [200])
    going_on = [{"step": 1, "stage": 1}, {"step": 2, "stage": 1}, {"step": 3, "stage": 2}, {"step": 9, "stage": 2}]
    assert pictures._continuous_steps(going_on) == ([1, 2, 3, 9], [2])
    assert pictures._continuous_steps([]) == ([], [])


@pytest.mark.parametrize("num_classes", [2, 60])
def test_confusion_picture(tmp_path, num_classes):
    references = np.arange(200) % num_classes
    names = [f"class {number}" for number in range(num_classes)]
    for name, predictions in (("right", references), ("wrong", np.zeros_like(references))):
        draw_confusion(references, predictions, names, tmp_path / f"{name}.png")
    right, wrong = (imread(tmp_path / f"{name}.png") for name in ("right", "wrong"))
    assert right.std() > 0.03 and right.shape == wrong.shape and not np.array_equal(right, wrong)


def test_names_of_classes_are_no_formulas(figures):
    draw_confusion([0, 1], [0, 1], ["a$b$", r"$\frac$"], "confusion.png")
    labels = [label.get_text() for label in figures[0].axes[0].get_xticklabels()]
    assert labels == [r"a\$b\$", r"\$\frac\$"]
