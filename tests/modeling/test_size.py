"""Parameters and multiply-accumulates in closed form, against models and a meter."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hf_prunable import (
    AttentionShape,
    LayerShape,
    Measure,
    PrunedShape,
    compact,
    deterministic_sparsity,
    expected_sparsity,
    sparsity_ceiling,
)
from hf_prunable.modeling.size import (
    PARAMETERS,
    SAMPLING_RATE,
    UnitCounts,
    choose_target,
    count_macs,
    count_parameters,
)
from hf_prunable.modeling.units import UNITS
from tests.helpers.gated_models import dense, gate_of, gated
from tests.helpers.tiny_models import (
    FAMILIES,
    FEATURE_NORMS,
    NORM_ORDERS,
    PRUNABLE_CLASSES,
    PRUNABLE_CONFIGS,
    STOCK_CLASSES,
    pruned_shapes,
    randomize_,
    tiny_config,
    tiny_inputs,
    tiny_prunable,
)


NO_MASK = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 2, "adapter_kernel_size": 5, "adapter_stride": 3}
VARIANTS = {
    "plain": ({}, FAMILIES),
    "no mask embedding": (NO_MASK, FAMILIES),
    "mask over features only": ({"mask_time_prob": 0.0}, FAMILIES),
    "one convolution group": ({"num_conv_pos_embedding_groups": 1, "num_conv_pos_embeddings": 9}, FAMILIES),
    "batch norm": ({"conv_pos_batch_norm": True}, ("hubert",)),
    "no projection norm": ({"feat_proj_layer_norm": False}, ("hubert",)),
    "adapter": (ADAPTER, ("wavlm", "wav2vec2")),
    "narrower adapter": ({**ADAPTER, "output_hidden_size": 14}, ("wavlm", "wav2vec2")),
    "attention adapters": ({"adapter_attn_dim": 5}, ("hubert", "wav2vec2")),
}
FAMILY_VARIANTS = [(family, name) for name, (_, families) in VARIANTS.items() for family in families]


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize(("family", "variant"), FAMILY_VARIANTS)
@given(data=st.data())
def test_closed_form_equals_num_parameters(family, variant, norm_order, data):
    fields = {
        "feature_norm": data.draw(st.sampled_from(FEATURE_NORMS)),
        "conv_bias": data.draw(st.booleans()),
        **VARIANTS[variant][0],
    }
    shape = data.draw(pruned_shapes(tiny_config(family)))
    config = tiny_config(family, norm_order, prunable=True, pruned_shape=shape.to_dict(), **fields)
    with torch.device("meta"):
        model = PRUNABLE_CLASSES[family]["base"](config)
    assert count_parameters(config, UnitCounts.of(shape)) == model.num_parameters()
    assert config.dense_num_parameters == count_parameters(config, UnitCounts.of(PrunedShape.dense(config)))


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize(("family", "variant"), FAMILY_VARIANTS)
def test_dense_count_equals_the_stock_model(family, variant, norm_order):
    fields = VARIANTS[variant][0]
    config = tiny_config(family, norm_order, prunable=True, **fields)
    with torch.device("meta"):
        stock = STOCK_CLASSES[family]["base"](tiny_config(family, norm_order, **fields))
    assert config.dense_num_parameters == stock.num_parameters()


@pytest.mark.parametrize("family", FAMILIES)
def test_published_base_sizes(family):
    config = PRUNABLE_CONFIGS[family]()
    with torch.device("meta"):
        stock = STOCK_CLASSES[family]["base"](config.to_stock())
    assert config.dense_num_parameters == stock.num_parameters()
    if family == "wavlm":
        assert config.dense_num_parameters == 94_381_936
        counts = config.dense_counts
        bare = [replace(layer, **dict.fromkeys(vars(layer), 0)) for layer in counts.layers]
        prunable = count_parameters(config, counts) - count_parameters(config, replace(counts, layers=bare))
        # The docs' 85,017,600 leave out what the position bias gate has beside the heads.
        assert prunable - 12 * (12 + 8 * 65) == 85_017_600


def test_the_original_layers_are_counted_after_truncation():
    dense = tiny_config("wavlm", prunable=True, num_hidden_layers=5)
    truncated = tiny_config("wavlm", prunable=True, num_hidden_layers=2, dense_num_hidden_layers=5)
    assert truncated.dense_num_parameters == dense.dense_num_parameters
    assert count_parameters(truncated, UnitCounts.of(truncated.shape)) < dense.dense_num_parameters


def wavlm_base_macs(seconds=10.0, conv_channels=(512,) * 7, **layer):
    """MACs of WavLM base, with changed counts in all its layers."""
    config = PRUNABLE_CONFIGS["wavlm"]()
    counts = config.dense_counts
    layers = [replace(each, **layer) for each in counts.layers]
    return count_macs(config, UnitCounts(conv_channels, layers, 12), seconds)


def test_macs_of_wavlm_base():
    assert count_macs(PRUNABLE_CONFIGS["wavlm"](), PRUNABLE_CONFIGS["wavlm"]().dense_counts) == wavlm_base_macs()
    assert wavlm_base_macs(10) / 1e9 == pytest.approx(74.1, abs=0.05)
    assert wavlm_base_macs(1) / 1e9 == pytest.approx(6.91, abs=0.005)


def test_macs_of_wavlm_base_term_by_term():
    """The table in GMAC at 10 s, each term as what is missing without its units."""
    full = wavlm_base_macs()
    no_layers = {"query_key": 0, "value_output": 0, "heads": 0, "intermediate": 0}
    no_convolutions = (0,) * 7

    def first(number):
        return wavlm_base_macs(conv_channels=(512,) * number + (0,) * (7 - number)) - wavlm_base_macs(
            conv_channels=no_convolutions
        )

    assert first(1) / 1e9 == pytest.approx(0.16, abs=0.005)
    assert (first(2) - first(1)) / 1e9 == pytest.approx(12.6, abs=0.05)
    assert (first(7) - first(2)) / 1e9 == pytest.approx(11.8, abs=0.05)
    assert (full - wavlm_base_macs(intermediate=0)) / 1e9 == pytest.approx(28.3, abs=0.05)
    attention = full - wavlm_base_macs(query_key=0, value_output=0)
    projections, core = 12 * 4 * 499 * 768**2, 12 * 2 * 499**2 * 768
    assert attention == projections + core
    assert projections / 1e9 == pytest.approx(14.1, abs=0.05) and core / 1e9 == pytest.approx(4.6, abs=0.05)
    assert full - wavlm_base_macs(heads=0) == 12 * 12 * 499 * 64 * 8
    feature_projection, position_convolution = 499 * 512 * 768, 500 * 768 * 48 * 128
    assert wavlm_base_macs(conv_channels=no_convolutions, **no_layers) == feature_projection + position_convolution
    assert feature_projection / 1e9 == pytest.approx(0.2, abs=0.005)
    assert position_convolution / 1e9 == pytest.approx(2.4, abs=0.05)


def test_macs_of_wavlm_base_in_one_second():
    no_layers = {"query_key": 0, "value_output": 0, "heads": 0, "intermediate": 0}
    full = wavlm_base_macs(1)
    assert (full - wavlm_base_macs(1, conv_channels=(0,) * 7)) / 1e9 == pytest.approx(2.45, abs=0.01)
    assert (full - wavlm_base_macs(1, **no_layers)) / 1e9 == pytest.approx(4.21, abs=0.01)


def metered_macs(model, seconds):
    inputs = tiny_inputs(1, round(seconds * SAMPLING_RATE), padded=False)["input_values"]
    # The meter's module tracker stumbles over a bare parameter as a module's output, where it has a gradient.
    model.requires_grad_(False)
    # Under inference_mode the meter fails on the weight-normed convolution; CPU SDPA it would count as nothing.
    with torch.no_grad(), FlopCounterMode(display=False) as meter:
        model(inputs)
    flops = meter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize(("family", "variant"), FAMILY_VARIANTS)
@pytest.mark.parametrize("seconds", [0.05, 0.0833])
def test_macs_equal_the_meter(family, variant, norm_order, seconds):
    model = tiny_prunable(family, norm_order, attn_implementation="eager", **VARIANTS[variant][0])
    assert count_macs(model.config, UnitCounts.of(model.config.shape), seconds) == metered_macs(model, seconds)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_macs_of_a_pruned_model_equal_the_meter(family, norm_order):
    """Heads of one width within a block: ragged ones are padded, and the meter sees the padding."""
    layers = (
        LayerShape(AttentionShape((0, 2, 3), (2,) * 3, (2,) * 3), 7),
        LayerShape(AttentionShape((), (), ()), 40),
        LayerShape(None, 0),
        LayerShape(AttentionShape((1,), (5,), (5,)), None),
    )
    shape = PrunedShape((5, 9, 20), layers).to_dict()
    model = tiny_prunable(family, norm_order, attn_implementation="eager", num_hidden_layers=4, pruned_shape=shape)
    config = model.config
    assert count_macs(config, UnitCounts.of(config.shape), 0.05) == metered_macs(model, 0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_macs_of_a_model_with_rounded_widths_equal_the_meter(family):
    model = tiny_prunable(family, feature_norm="group", attn_implementation="eager")
    model.attach_gates(UNITS)
    head_dim = model.config.hidden_size // model.config.num_attention_heads
    # Heads that are left have full width, so none is padded.
    small = compact(randomize_(model, seed=1), target_macs=0.3, mac_seconds=0.05, round_to=head_dim)
    shape = small.config.shape
    assert {width for layer in shape.layers if layer.heads for width in layer.attention.query_key} == {head_dim}
    assert not shape.is_dense(small.config) and any(layer.heads for layer in shape.layers)
    assert count_macs(small.config, UnitCounts.of(shape), 0.05) == metered_macs(small, 0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_clips_too_short_for_a_frame_are_refused(family):
    config = tiny_config(family, prunable=True)
    # Ten samples of the first convolution, two more steps for the second, two more of that for the third.
    shortest = 10 + 5 * (3 - 1) + 10 * (2 - 1)
    assert count_macs(config, config.dense_counts, shortest / SAMPLING_RATE) > 0
    with pytest.raises(ValueError, match=r"too short for one frame of this model; take a longer one"):
        count_macs(config, config.dense_counts, (shortest - 1) / SAMPLING_RATE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_measure_counts_what_its_name_says(family):
    config = tiny_config(family, prunable=True)
    counts = UnitCounts.of(config.shape)
    assert PARAMETERS == Measure("parameters")
    assert PARAMETERS.count(config, counts) == count_parameters(config, counts) == PARAMETERS.dense(config)
    for seconds in (1.0, 10.0):
        measure = Measure("macs", seconds)
        assert measure.count(config, counts) == count_macs(config, counts, seconds) == measure.dense(config)
        assert measure.sparsity(config, counts) == 0
    assert Measure("macs") == Measure("macs", 10.0)


def test_the_dense_size_is_that_of_all_original_layers():
    truncated = tiny_config("wavlm", prunable=True, num_hidden_layers=2, dense_num_hidden_layers=5)
    complete = tiny_config("wavlm", prunable=True, num_hidden_layers=5)
    for measure in (PARAMETERS, Measure("macs")):
        assert measure.dense(truncated) == measure.dense(complete)
        assert 0 < measure.sparsity(truncated, UnitCounts.of(truncated.shape)) < 1


def test_measures_are_named_in_words():
    assert str(PARAMETERS) == "parameters"
    assert str(Measure("macs")) == "multiply-accumulates of a 10 s clip"
    assert str(Measure("macs", 2.5)) == "multiply-accumulates of a 2.5 s clip"


def test_an_unknown_measure_is_refused():
    with pytest.raises(ValueError, match=r"one of \('parameters', 'macs'\), but is 'flops'"):
        Measure("flops")


@pytest.mark.parametrize("seconds", (float("nan"), float("inf"), -1.0, 90000.0, "10", None))
def test_a_clip_of_no_length_is_refused(seconds):
    with pytest.raises(ValueError, match=f"`mac_seconds` must be a number of seconds up to 86400, but is {seconds!r}"):
        choose_target(None, 0.5, seconds)


def test_a_clip_without_a_frame_is_refused():
    with pytest.raises(ValueError, match="too short for one frame"):
        Measure("macs", 0.0).dense(tiny_config("wavlm", prunable=True))


def test_a_target_brings_its_measure():
    assert choose_target(0.7, None) == (0.7, PARAMETERS)
    assert choose_target(None, 0.5) == (0.5, Measure("macs"))
    assert choose_target(None, 0.5, 2.0) == (0.5, Measure("macs", 2.0))
    assert choose_target(None, None) == (None, PARAMETERS)
    with pytest.raises(
        ValueError, match=r"`target_sparsity` is 0\.7 and `target_macs` is 0\.5.*Leave one of them out"
    ):
        choose_target(0.7, 0.5)


@pytest.mark.parametrize("measure", (PARAMETERS, Measure("macs", 1.0)), ids=str)
def test_sparsities_agree_where_gates_are_decided(measure):
    model = gated(dense("wavlm"), log_alpha=1000.0)
    assert deterministic_sparsity(model, measure) == 0
    gate_of(model, 1, "int").log_alpha.data[::2] = -1000.0
    gate_of(model, 2, "mha").log_alpha.data[:] = -1000.0
    half_way = deterministic_sparsity(model, measure)
    assert expected_sparsity(model, measure).item() == pytest.approx(half_way, abs=1e-6)
    for _, gate in model.named_gates():
        gate.log_alpha.data = torch.full_like(gate.log_alpha, -1000.0)
    assert half_way < deterministic_sparsity(model, measure) == sparsity_ceiling(model, measure)
