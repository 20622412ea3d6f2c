"""Pictures of profiles: what is on them."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from hf_prunable import ConvexityConfig, LayerProfile, choose_layer, convexity_curves, draw_layer_profiles
from hf_prunable.one_shot.round_files import PruningRound, UnitPrice
from hf_prunable.pruning.fidelity import Fidelity
from hf_prunable.reporting.layer_pictures import LayerCurve, draw_fidelity, draw_prices
from hf_prunable.truncation.layer_profile import LabelProfile, LayerScores


@pytest.fixture
def profile():
    labels = {
        name: LabelProfile(LayerScores(values, [0.01] * 4), permuted_convexity=[[0.1] * 4, [0.2] * 4, [0.15] * 4])
        for name, values in (("word", [0.1, 0.3, 0.8, 0.7]), ("speaker", [0.2, 0.9, 0.5, 0.3]))
    }
    return LayerProfile(3, 100, ConvexityConfig(), labels | {"accent": LabelProfile()})


def test_curves_are_those_of_the_profile(profile):
    choices = [choose_layer(profile, labels=name) for name in ("word", "speaker")]
    curves = convexity_curves(profile, choices, suffix=", pretrained", dashes=1)
    assert [curve.name for curve in curves] == ["word, pretrained", "speaker, pretrained"]
    assert [curve.num_layers for curve in curves] == [2, 1]
    assert curves[0].values == [0.1, 0.3, 0.8, 0.7] and curves[0].dashes == 1
    assert [curve.color for curve in curves] == [0, 1]
    np.testing.assert_allclose(curves[0].band, profile.labels["word"].permuted_band())
    bare = convexity_curves(profile, with_band=False)
    assert [curve.band for curve in bare] == [None, None] and [curve.num_layers for curve in bare] == [None, None]


def test_every_part_of_a_curve_is_drawn(profile, tmp_path):
    parts = {
        "line": {},
        "errors": {"standard_errors": [0.1] * 4},
        "band": {"band": ([0.0] * 4, [0.1] * 4)},
        "chosen": {"num_layers": 2},
        "dashes": {"dashes": 1},
        "color": {"color": 3},
    }
    pictures = []
    for name, part in parts.items():
        draw_layer_profiles([LayerCurve("word", [0.1, 0.3, 0.8, 0.7], **part)], tmp_path / f"{name}.png")
        pictures.append(imread(tmp_path / f"{name}.png"))
    assert pictures[0].std() > 0.05
    assert all(picture.shape == pictures[0].shape for picture in pictures)
    for number, picture in enumerate(pictures):
        assert all(np.abs(picture - other).max() > 0.1 for other in pictures[:number])


def test_models_of_different_depth_share_a_picture(profile, tmp_path):
    deeper = LayerCurve("deeper", np.linspace(0, 1, 25).tolist())
    draw_layer_profiles([*convexity_curves(profile), deeper], tmp_path / "both.png", title="two models")
    assert imread(tmp_path / "both.png").std() > 0.05


def test_no_curve_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no curve to draw"):
        draw_layer_profiles([], tmp_path / "none.png")


def test_fidelity_of_every_hidden_state_is_drawn(monkeypatch, tmp_path):
    fidelity = Fidelity([0.99, 0.95, 0.9], [0.1, 0.3, 1.2], 0.05, 100)
    draw_fidelity(fidelity, tmp_path / "fidelity.png")
    assert imread(tmp_path / "fidelity.png").std() > 0.05
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    draw_fidelity(fidelity, "fidelity.png", "dense model")
    figure = drawn[0]
    assert figure.get_suptitle() == "Hidden states of the pruned model against the dense model's, held-out audio"
    top, bottom = figure.axes
    assert top.lines[0].get_ydata().tolist() == fidelity.cosine
    assert bottom.lines[0].get_ydata().tolist() == fidelity.relative_error
    assert (top.get_ylabel(), bottom.get_ylabel()) == ("Cosine similarity", "Relative error")
    assert top.get_ylim()[1] == 1 and bottom.get_ylim()[0] == 0 and bottom.get_ylim()[1] > 1.2


@pytest.mark.parametrize("num_rounds", [1, 3])
def test_prices_of_the_first_and_the_last_round_are_drawn(monkeypatch, num_rounds):
    rounds = []
    for number in range(num_rounds):
        prices = [UnitPrice(idx, unit, 0.001 * (number + idx + 1)) for idx in range(3) for unit in ("qk", "int")]
        rounds.append(PruningRound(0.1 * number, [5], [6] * 3, [6] * 3, [40] * 3, 0.35, prices))
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: drawn.append(figure))
    draw_prices(rounds, "prices.png")
    (axes,) = drawn[0].axes
    first, last = [0.001, 0.002, 0.003], [0.001 * (num_rounds + idx) for idx in range(3)]
    expected = [first, first, last, last] if num_rounds > 1 else [first, first]
    for line, prices in zip(axes.lines, expected, strict=True):
        assert line.get_ydata() == pytest.approx(prices)
    assert axes.get_ylabel() == "Growth of the loss without 35 % of the units"
    names = [line.get_label() for line in axes.lines]
    assert names[:2] == (
        ["query/key dimensions, first round", "intermediate units, first round"]
        if num_rounds > 1
        else ["query/key dimensions", "intermediate units"]
    )
