"""The number of layers to keep, by every criterion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable import ConvexityConfig, LayerChoice, LayerProfile, choose_layer
from hf_prunable.truncation.layer_choice import earliest_within_error
from hf_prunable.truncation.layer_profile import LabelProfile, LayerScores


def profile(num_layers=4, **scores):
    """A profile with these scores and standard errors for the label set "word", and none for "speaker"."""
    words = {name: LayerScores(values, errors) for name, (values, errors) in scores.items()}
    labels = {"word": LabelProfile(**words), "speaker": LabelProfile()}
    return LayerProfile(num_layers, 100, ConvexityConfig(), labels)


CASES = {
    "peak": ([0.1, 0.2, 0.9, 0.5, 0.3], [0.05] * 5, 2, 2, False),
    "earliest within the error of the best": ([0.1, 0.7, 0.72, 0.75, 0.3], [0.0, 0.0, 0.0, 0.05, 0.0], 1, 3, False),
    "only the best layer's error counts": ([0.1, 0.7, 0.72, 0.75, 0.3], [0.9, 0.9, 0.9, 0.01, 0.9], 3, 3, False),
    "first of equal peaks": ([0.1, 0.2, 0.8, 0.2, 0.8], [0.0] * 5, 2, 2, False),
    "layer 0 is never kept": ([0.8, 0.2, 0.3, 0.79, 0.78], [0.005] * 5, 3, 3, True),
    "layer 0 within the error": ([0.76, 0.2, 0.3, 0.79, 0.78], [0.04] * 5, 3, 3, True),
}


@pytest.mark.parametrize("criterion", ["convexity", "probe", "neighbourhood_hit"])
@pytest.mark.parametrize("case", CASES)
def test_the_earliest_layer_within_one_standard_error(case, criterion):
    values, errors, kept, best, ties = CASES[case]
    choice = choose_layer(profile(**{criterion: (values, errors)}), criterion, "word")
    expected = LayerChoice(kept, criterion, "word", best, values[kept], values[best], errors[best], ties)
    assert choice == expected


def test_a_tie_with_layer_0_is_reported(monkeypatch):
    warnings = []
    monkeypatch.setattr("hf_prunable.truncation.layer_choice.logger.warning", warnings.append)
    values, errors, *_ = CASES["layer 0 is never kept"]
    choose_layer(profile(convexity=(values, errors)), labels="word")
    assert len(warnings) == 1 and "'word'" in warnings[0] and "(0.8000) is as good as the best layer, 3" in warnings[0]
    choose_layer(profile(convexity=CASES["peak"][:2]), labels="word")
    assert len(warnings) == 1


@given(st.data(), st.integers(1, 30))
def test_the_rule_holds_for_any_scores(data, num_layers):
    score = st.floats(0, 1)
    values, errors = (data.draw(st.lists(score, min_size=num_layers + 1, max_size=num_layers + 1)) for _ in range(2))
    found = earliest_within_error(LayerScores(values, errors), "convexity", "word")
    best, kept = found.best_layer, found.num_layers
    assert 1 <= kept <= best <= num_layers
    assert values[best] == max(values[1:])
    assert values[kept] >= values[best] - errors[best] > max(values[1:kept], default=-np.inf)
    assert found.ties_with_layer_0 == (values[0] >= values[best] - errors[best])


def test_block_influence_keeps_up_to_the_last_block_that_changes_much():
    layers = profile()
    layers.block_influence = [0.4, 0.05, 0.3, 0.04]
    assert choose_layer(layers, "block_influence") == LayerChoice(3, "block_influence")
    layers.block_influence = [0.1] * 4
    assert choose_layer(layers, "block_influence").num_layers == 4


def test_cka_keeps_up_to_the_first_layer_like_the_last():
    layers = profile()
    layers.cka = [0.95, 0.5, 0.92, 0.97, 1.0]
    assert choose_layer(layers, "cka") == LayerChoice(2, "cka", score=0.92)
    layers.cka = [0.1, 0.2, 0.3, 0.4, 1.0 - 1e-15]
    assert choose_layer(layers, "cka").num_layers == 4


def test_a_number_is_taken_as_it_is():
    assert [choose_layer(profile(), number) for number in (1, 4)] == [LayerChoice(n, "explicit") for n in (1, 4)]


def test_what_cannot_be_chosen_is_named():
    layers = profile(convexity=CASES["peak"][:2])
    for number in (0, 5, -1):
        with pytest.raises(ValueError, match=f"{number} layers cannot be kept; the model has layers 1 to 4"):
            choose_layer(layers, number)
    with pytest.raises(ValueError, match="no criterion 'best'; choose one of convexity, probe, .*1 to 4"):
        choose_layer(layers, "best")
    with pytest.raises(ValueError, match="No labels are named; choose one of .*: word, speaker"):
        choose_layer(layers)
    with pytest.raises(ValueError, match="no labels 'speakers'; choose one of .*: word, speaker"):
        choose_layer(layers, labels="speakers")
    for criterion in ("probe", "cka", "block_influence"):
        with pytest.raises(ValueError, match=f"'{criterion}' was not computed"):
            choose_layer(layers, criterion, "word")
    del layers.labels["speaker"]
    assert choose_layer(layers).labels == "word"
