"""Compaction: the small model computes what the masked one does, has the size that was counted, and meets targets."""

import copy
import functools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, HEADS, NORM_ORDERS, randomize_, tiny_inputs, tiny_prunable

import hf_prunable
from hf_prunable import (
    PrunedShape,
    compact,
    deterministic_sparsity,
    expected_sparsity,
    load_prunable,
    sparsity_ceiling,
)
from hf_prunable.compaction import TARGET_TOLERANCE, GateDecisions, decide_at_target
from hf_prunable.modeling.pretrained import DEFAULT_UNITS, UNITS
from hf_prunable.shape import AttentionShape, LayerShape
from hf_prunable.size import UnitCounts, count_parameters


# float32 rounding over a few layers of values around 1; on the largest difference anywhere.
TOLERANCE = 1e-5
# log_alpha of gates whose value is 0 and 1, and around the two limits, which are at -2.398 and 2.398.
CLOSED, OPEN = -4.0, 4.0
LOG_ALPHAS = (-6.9, CLOSED, -2.4, -2.39, -2.0, -0.5, 0.0, 0.5, 2.0, 2.39, 2.4, OPEN)
NUM_LAYERS, NUM_HEADS, HEAD_DIM, INTERMEDIATE, SIZE = 3, 4, 6, 40, 24
# Fields of a configuration that change what a pruned model is made of.
VARIANTS = {
    "wavlm": ({}, {"conv_bias": True}, {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}),
    "hubert": ({}, {"conv_pos_batch_norm": True}, {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
    "wav2vec2": ({}, {"adapter_attn_dim": 5}, {"add_adapter": True, "output_hidden_size": 26}, {"conv_bias": True}),
}


@functools.cache
def _dense(family, norm_order, feature_norm, variant):
    return tiny_prunable(family, norm_order, feature_norm=feature_norm, **VARIANTS[family][variant])


def dense(family, norm_order="post", feature_norm="group", variant=0):
    return copy.deepcopy(_dense(family, norm_order, feature_norm, variant))


def gated(model, units=UNITS, log_alpha=OPEN):
    """The model with gates, all with the same log_alpha."""
    model.attach_gates(units)
    for _, gate in model.named_gates():
        gate.log_alpha.data.fill_(log_alpha)
    return model.eval()


def gate_of(model, layer, unit):
    layer = model.base_model.encoder.layers[layer]
    if unit in ("ffn", "int"):
        return layer.feed_forward.output_dense.gates[unit]
    return (layer.attention.q_proj if unit == "qk" else layer.attention.out_proj).gates[unit]


def close(model, layer, unit, *which):
    """Closes gates of a layer: all, or those named by numbers or slices."""
    log_alpha = gate_of(model, layer, unit).log_alpha.data
    for number in which or (slice(None),):
        log_alpha[number] = CLOSED


def head_dims(head):
    return slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)


@torch.no_grad()
def run(model, inputs, attention):
    model.set_attn_implementation(attention)
    return model(**inputs, output_hidden_states=True, output_attentions=attention == "eager")


def deviation(a, b):
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    return (a - b).abs().max().item()


def assert_same(masked, small, attention="eager", padded=True):
    """Compares a model with gates in evaluation mode with what `compact` made of it."""
    inputs = tiny_inputs(batch_size=2, samples=400, padded=padded)
    if not padded:
        del inputs["attention_mask"]
    expected, actual = run(masked, inputs, attention), run(small, inputs, attention)
    worst = deviation(expected.last_hidden_state, actual.last_hidden_state)
    assert len(expected.hidden_states) == len(actual.hidden_states) == len(masked.encoder.layers) + 1
    for one, other in zip(expected.hidden_states, actual.hidden_states, strict=True):
        worst = max(worst, deviation(one, other))
    if attention == "eager":
        layers = list(zip(masked.config.shape.layers, small.config.shape.layers, strict=True))
        assert len(expected.attentions) == len(actual.attentions) == len(layers)
        for one, other, (before, after) in zip(expected.attentions, actual.attentions, layers, strict=True):
            assert other.shape[1] == len(after.heads)
            if after.heads:
                worst = max(worst, deviation(one[:, [before.heads.index(head) for head in after.heads]], other))
    assert worst <= TOLERANCE
    return worst


def assert_counted(masked, small):
    counted = count_parameters(small.config, UnitCounts.of(small.config.shape))
    assert counted == small.base_model.num_parameters() == GateDecisions(masked).num_parameters()
    assert deterministic_sparsity(masked) == 1 - counted / masked.config.dense_num_parameters


def compacted(model, **how):
    """`compact(model)`, checked against the masked model."""
    small = compact(model)
    assert_same(model, small, **how)
    assert_counted(model, small)
    assert small.config.gates is None and not list(small.named_gates())
    return small


# Any gate pattern whatever


def _set_pattern(model, pattern, seed):
    """Sets each gate module open, closed, mixed, or open and closed by whole heads."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [layer.attention.shape for layer in model.encoder.layers]
    values = torch.tensor(LOG_ALPHAS)
    for (name, gate), mode in zip(model.named_gates(), pattern, strict=False):
        mixed = values[torch.randint(len(values), (gate.num_gates,), generator=generator)]
        unit = name.rsplit(".", 1)[1]
        if mode == "heads" and unit in ("qk", "vo"):
            shape = shapes[int(re.search(r"layers\.(\d+)\.", name)[1])]
            widths = shape.query_key if unit == "qk" else shape.value_output
            is_closed = torch.rand(len(widths), generator=generator) < 0.5
            mixed = mixed.where(~is_closed.repeat_interleave(torch.tensor(widths)), torch.tensor(CLOSED))
        gate.log_alpha.data = {"open": torch.full_like(mixed, OPEN), "closed": torch.full_like(mixed, CLOSED)}.get(
            mode, mixed
        )


MODES = st.sampled_from(("open", "closed", "mixed", "heads"))
PATTERNS = st.lists(MODES, min_size=20, max_size=20)
SUBSETS = st.lists(st.sampled_from(UNITS), min_size=1, unique=True).map(tuple)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=100)
@given(data=st.data())
def test_masked_equals_small_after_any_gate_pattern(family, norm_order, data):
    units = data.draw(st.just(UNITS) | SUBSETS)
    variant = data.draw(st.integers(0, len(VARIANTS[family]) - 1))
    feature_norm = "group" if "conv" in units else data.draw(st.sampled_from(("group", "layer")))
    model = dense(family, norm_order, feature_norm, variant)
    for _ in range(data.draw(st.integers(1, 2), label="times pruned")):
        model.attach_gates(units)
        model.eval()
        _set_pattern(model, data.draw(PATTERNS), data.draw(st.integers(0, 2**32)))
        attention = data.draw(st.sampled_from(("eager", "sdpa")))
        model = compacted(model, attention=attention, padded=data.draw(st.booleans()))


# Named patterns


def both_norm_orders(test):
    return pytest.mark.parametrize("family", FAMILIES)(pytest.mark.parametrize("norm_order", NORM_ORDERS)(test))


@both_norm_orders
def test_all_heads_of_the_first_layer_gone(family, norm_order):
    model = gated(dense(family, norm_order))
    close(model, 0, "vo")
    small = compacted(model)
    assert small.config.shape.layers[0].attention == AttentionShape((), (), ())
    assert set(dict(small.encoder.layers[0].attention.named_parameters())) == {"out_proj.bias"} | (
        {"rel_attn_embed.weight"} if family == "wavlm" else set()
    )


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
def test_position_bias_survives_the_first_attention_block(norm_order):
    model = gated(dense("wavlm", norm_order))
    close(model, 0, "mha")
    close(model, 1, "head", 1, 2)
    close(model, 2, "head", 1)
    attention = compacted(model).encoder.layers[0].attention
    assert set(dict(attention.named_parameters())) == {"rel_attn_embed.weight"}
    expected = model.encoder.layers[0].attention.rel_attn_embed.weight[:, [0, 2, 3]]
    assert torch.equal(attention.rel_attn_embed.weight, expected)


@both_norm_orders
def test_head_without_queries_and_keys(family, norm_order):
    model = gated(dense(family, norm_order))
    close(model, 1, "qk", head_dims(2))
    close(model, 2, "qk")
    layers = compacted(model).config.shape.layers
    assert layers[1].attention.query_key == (HEAD_DIM, HEAD_DIM, 0, HEAD_DIM)
    assert layers[2].attention == AttentionShape((0, 1, 2, 3), (0,) * NUM_HEADS, (HEAD_DIM,) * NUM_HEADS)


@both_norm_orders
def test_scores_are_scaled_for_the_original_heads(family, norm_order):
    model = gated(dense(family, norm_order))
    for head in range(NUM_HEADS):
        start = head * HEAD_DIM
        close(model, 1, "qk", slice(start + 1, start + 5))
        close(model, 2, "vo", slice(start, start + 5))
    layers = compacted(model).config.shape.layers
    assert layers[1].attention.query_key == (2,) * NUM_HEADS
    assert layers[2].attention.value_output == (1,) * NUM_HEADS


@both_norm_orders
def test_head_without_values_goes_with_its_queries_and_keys(family, norm_order):
    model = gated(dense(family, norm_order))
    close(model, 1, "vo", head_dims(0), head_dims(2))
    attention = compacted(model).config.shape.layers[1].attention
    assert attention == AttentionShape((1, 3), (HEAD_DIM,) * 2, (HEAD_DIM,) * 2)


@both_norm_orders
@pytest.mark.parametrize("unit", ("vo", "head"))
def test_all_fine_gates_closed_leave_the_output_bias(family, norm_order, unit):
    model = gated(dense(family, norm_order))
    close(model, 1, unit)
    close(model, 1, "int")
    small = compacted(model)
    assert small.config.shape.layers[1] == LayerShape(AttentionShape((), (), ()), 0)
    names = {name for name, _ in small.encoder.layers[1].named_parameters()}
    norms = {f"{norm}.{kind}" for norm in ("layer_norm", "final_layer_norm") for kind in ("weight", "bias")}
    biases = {"attention.out_proj.bias", "feed_forward.output_dense.bias"}
    assert names == (biases | norms if norm_order == "post" else biases)


@both_norm_orders
def test_output_bias_carries_the_block_gate(family, norm_order):
    model = gated(dense(family, norm_order))
    close(model, 1, "vo")
    gate = gate_of(model, 1, "mha")
    gate.log_alpha.data.fill_(0.0)
    bias = compacted(model).encoder.layers[1].attention.out_proj.bias
    assert torch.equal(bias, model.encoder.layers[1].attention.out_proj.bias * gate())


@both_norm_orders
@pytest.mark.parametrize("unit", ("mha", "ffn"))
def test_closed_block_gate_takes_the_bias(family, norm_order, unit):
    model = gated(dense(family, norm_order))
    close(model, 1, unit)
    small = compacted(model)
    layer = small.encoder.layers[1]
    assert not list((layer.attention if unit == "mha" else layer.feed_forward).parameters())
    kept = small.config.shape.layers[1]
    assert (kept.attention is None, kept.intermediate is None) == (unit == "mha", unit == "ffn")


@both_norm_orders
def test_a_whole_layer_gone(family, norm_order):
    model = gated(dense(family, norm_order))
    close(model, 1, "mha")
    close(model, 1, "ffn")
    small = compacted(model)
    assert small.config.shape.layers[1] == LayerShape(None, None)
    # Post-norm models still apply both norms of an emptied layer.
    assert sum(p.numel() for p in small.encoder.layers[1].parameters()) == (4 * SIZE if norm_order == "post" else 0)


def test_an_attention_adapter_runs_in_an_emptied_layer():
    model = gated(dense("wav2vec2", "pre", variant=1))
    for layer in range(NUM_LAYERS):
        close(model, layer, "mha")
        close(model, layer, "ffn")
    small = compacted(model)
    names = {name.split(".")[0] for name, _ in small.encoder.layers[0].named_parameters()}
    assert names == {"adapter_layer"}
    hidden_states = run(small, tiny_inputs(), "eager").hidden_states
    assert deviation(hidden_states[0], hidden_states[1]) > 0.1


@both_norm_orders
def test_every_layer_gone(family, norm_order):
    model = gated(dense(family, norm_order))
    for layer in range(NUM_LAYERS):
        close(model, layer, "mha")
        close(model, layer, "ffn")
    small = compacted(model)
    assert small.config.shape.layers == (LayerShape(None, None),) * NUM_LAYERS
    assert not any("rel_attn_embed" in name for name, _ in small.named_parameters())


@both_norm_orders
@pytest.mark.parametrize("conv_bias", (False, True))
def test_convolution_channels_gone(family, norm_order, conv_bias):
    model = tiny_prunable(family, norm_order, feature_norm="group", conv_bias=conv_bias)
    model = gated(model, ("conv",))
    convolutions = [layer.conv for layer in model.feature_extractor.conv_layers]
    convolutions[1].gates["conv"].log_alpha.data[[0, 3, 11]] = CLOSED
    convolutions[2].gates["conv"].log_alpha.data[5:] = CLOSED
    convolutions[2].gates["conv"].log_alpha.data[1] = 0.0
    assert compacted(model).config.shape.conv_channels == (9, 5, 20)


@both_norm_orders
@pytest.mark.parametrize("number", (1, 2))
@pytest.mark.parametrize("conv_bias", (False, True))
def test_convolution_with_all_gates_closed_keeps_a_channel_that_is_0(family, norm_order, number, conv_bias):
    model = tiny_prunable(family, norm_order, feature_norm="group", conv_bias=conv_bias)
    model = gated(model, ("conv",))
    log_alpha = model.feature_extractor.conv_layers[number].conv.gates["conv"].log_alpha.data
    log_alpha.fill_(CLOSED)
    log_alpha[7] = -3.0
    small = compacted(model)
    assert small.config.shape.conv_channels[number - 1] == 1
    assert not small.feature_extractor.conv_layers[number].conv.weight.any()


@both_norm_orders
@pytest.mark.parametrize("survivor", ("vo", "int", "conv"))
def test_everything_but_one_unit_gone(family, norm_order, survivor):
    model = gated(dense(family, norm_order), log_alpha=CLOSED)
    if survivor == "conv":
        model.feature_extractor.conv_layers[2].conv.gates["conv"].log_alpha.data[4] = OPEN
    else:
        opened = {"vo": ("mha", "head", "vo"), "int": ("ffn", "int")}[survivor]
        for unit in opened:
            gate_of(model, 1, unit).log_alpha.data[{"vo": 2 * HEAD_DIM + 1, "head": 2}.get(unit, 0)] = OPEN
    shape = compacted(model).config.shape
    empty = LayerShape(None, None)
    survived = {"vo": LayerShape(AttentionShape((2,), (0,), (1,)), None), "int": LayerShape(None, 1), "conv": empty}
    assert shape == PrunedShape((1, 1, 20), (empty, survived[survivor], empty))


@both_norm_orders
@pytest.mark.parametrize("unit", ("vo", "head"))
def test_all_heads_gone_in_all_layers(family, norm_order, unit):
    model = gated(dense(family, norm_order))
    for layer in range(NUM_LAYERS):
        close(model, layer, unit)
    small = compacted(model)
    assert not small.config.shape.position_bias_heads
    assert not any("rel_attn_embed" in name for name, _ in small.named_parameters())
    assert all(layer.intermediate == INTERMEDIATE for layer in small.config.shape.layers)


@both_norm_orders
def test_gates_that_are_partly_open_are_folded(family, norm_order):
    model = gated(dense(family, norm_order), log_alpha=0.0)
    small = compacted(model)
    assert small.config.shape.is_dense(small.config)


@pytest.mark.parametrize(("family", "head"), [(family, head) for family in FAMILIES for head in HEADS[family][1:]])
def test_head_models_keep_their_logits(family, head):
    # For CTC the library has no weighted sum.
    model = tiny_prunable(family, head=head, use_weighted_layer_sum=head != "ctc", num_labels=7)
    model.attach_gates(UNITS)
    randomize_(model, seed=3).eval()
    close(model, 1, "mha")
    gate_of(model, 2, "mha").log_alpha.data.fill_(OPEN)
    small = compact(model)
    assert type(small) is type(model)
    assert_counted(model, small)
    assert len(small.config.shape.layers[1].heads) == 0 < len(small.config.shape.layers[2].heads)
    inputs = tiny_inputs()
    with torch.no_grad():
        assert deviation(model(**inputs).logits, small(**inputs).logits) <= TOLERANCE


# Once more on a pruned model


@both_norm_orders
def test_compacting_twice_counts_from_the_original_size(family, norm_order):
    model = dense(family, norm_order)
    dense_size = model.num_parameters()
    model.attach_gates()
    first = compact(randomize_(model, seed=1), 0.3)
    assert first.config.dense_num_parameters == dense_size
    first.attach_gates()
    assert expected_sparsity(first) > 0.29
    second = compact(randomize_(first, seed=2), 0.55)
    assert second.config.dense_num_parameters == dense_size
    assert 0.55 <= 1 - second.num_parameters() / dense_size < 0.56
    heads = [layer.heads for layer in second.config.shape.layers]
    assert all(set(after) <= set(before.heads) for after, before in zip(heads, first.config.shape.layers, strict=True))


# Targets


def assert_meets(model, target):
    """The target is met, with no unit left out that would still fit."""
    size = model.config.dense_num_parameters
    decisions = decide_at_target(model, target)
    gap = (1 - target) * size - decisions.num_parameters()
    assert gap >= 0
    smallest = min(_growths(decisions), default=0)
    assert gap < max(TARGET_TOLERANCE * size, smallest)
    small = compact(model, target)
    sparsity = 1 - small.base_model.num_parameters() / size
    assert target <= sparsity <= target + max(1e-3, smallest / size)
    return small


def _growths(decisions):
    """What opening one more unit would add, for all closed fine units that would add anything, largest models aside."""
    if len(decisions.fine) > 20 or sum(gate.num_gates for gate in decisions.fine) > 1000:
        return
    size = decisions.num_parameters()
    for gate in decisions.fine:
        for number in (~decisions.open[gate]).nonzero().flatten().tolist():
            decisions.open[gate][number] = True
            growth = decisions.num_parameters() - size
            decisions.open[gate][number] = False
            if growth:
                yield growth


@both_norm_orders
@pytest.mark.parametrize("units", (DEFAULT_UNITS, UNITS, ("head", "int")), ids=("paper", "all", "head+int"))
def test_target_is_met_on_tiny_models(family, norm_order, units):
    model = dense(family, norm_order)
    model.attach_gates(units)
    randomize_(model, seed=1)
    for target in (0.3, 0.5, 0.72):
        if target < sparsity_ceiling(model):
            assert_meets(model, target)


@pytest.mark.parametrize("units", (DEFAULT_UNITS, UNITS), ids=("paper", "all"))
def test_target_is_met_on_a_trained_model(shared_models, units):
    model = load_prunable(shared_models / "wavlm-mini")
    model.attach_gates(units)
    if units == DEFAULT_UNITS:
        assert sparsity_ceiling(model) == pytest.approx(0.89081, abs=5e-6)
        with pytest.raises(ValueError, match=r"at most 0\.8908 of this model"):
            compact(model, 0.89082)
    generator = torch.Generator().manual_seed(0)
    for _, gate in model.named_gates():
        gate.log_alpha.data = 3 * torch.randn(gate.num_gates, generator=generator)
    for target in (0.3, 0.5, 0.72):
        small = assert_meets(model, target)
        sparsity = 1 - small.num_parameters() / model.config.dense_num_parameters
        assert target <= sparsity <= target + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("units", (DEFAULT_UNITS, UNITS), ids=("paper", "all"))
def test_target_is_met_at_base_size(family, units):
    name = {"wavlm": "WavLM", "hubert": "Hubert", "wav2vec2": "Wav2Vec2"}[family]
    config = getattr(hf_prunable, f"Prunable{name}Config")()
    model = getattr(hf_prunable, f"Prunable{name}Model")(config)
    model.attach_gates(units)
    if family == "wavlm" and units == DEFAULT_UNITS:
        assert sparsity_ceiling(model) == pytest.approx(0.90089, abs=5e-6)
        with pytest.raises(ValueError, match=r"at most 0\.9008 of this model"):
            compact(model, 0.9009)
    generator = torch.Generator().manual_seed(0)
    for _, gate in model.named_gates():
        gate.log_alpha.data = 3 * torch.randn(gate.num_gates, generator=generator)
    for target in (0.3, 0.5, 0.72):
        small = compact(model, target)
        sparsity = 1 - small.num_parameters() / config.dense_num_parameters
        assert target <= sparsity <= target + 1e-3


def test_ceiling_of_wavlm_base():
    config = hf_prunable.PrunableWavLMConfig()
    empty = PrunedShape(tuple(config.conv_dim), (LayerShape(None, None),) * 12)
    assert config.dense_num_parameters == 94_381_936
    removed = config.dense_num_parameters - count_parameters(config, UnitCounts.of(empty))
    # Both blocks of all layers, and with the last head the whole position bias: table, gates and their constants.
    assert removed == 85_017_600 + 320 * 12 + 12 * (8 * (64 + 1) + 12)
    assert removed / config.dense_num_parameters == pytest.approx(0.90089, abs=5e-6)


def test_target_above_the_ceiling_is_refused_and_named():
    model = gated(dense("wavlm"), ("int", "qk"))
    ceiling = sparsity_ceiling(model)
    with pytest.raises(ValueError, match=r"gates on int, qk can remove at most 0\.\d{4} of this model") as error:
        compact(model, ceiling + 0.001)
    # What the message offers is rounded down, so that it can be had.
    named = float(re.search(r"at most (\S+)", str(error.value))[1])
    assert ceiling - 1e-4 < named <= ceiling
    compact(model, named)
    # At the ceiling every gate is closed, whatever its value.
    at_ceiling = 1 - compact(model, ceiling).num_parameters() / model.config.dense_num_parameters
    assert at_ceiling == pytest.approx(ceiling, abs=1e-12)


@pytest.mark.parametrize("target", (0, 1, -0.2, 1.5, 72))
def test_target_outside_0_to_1_is_refused(target):
    with pytest.raises(ValueError, match=rf"`target_sparsity` must lie between 0 and 1, but is {target}"):
        compact(gated(dense("hubert")), target)


def test_target_that_was_passed_before_is_refused():
    small = compact(gated(dense("hubert")), target_sparsity=0.5)
    small.attach_gates()
    with pytest.raises(ValueError, match=r"0\.3, and 0\.5\d* of the original dense encoder is gone already"):
        compact(small, target_sparsity=0.3)


def test_units_are_ranked_by_log_alpha_and_ties_by_weight_norm():
    model = gated(dense("wav2vec2"), ("int",))
    for layer in range(NUM_LAYERS):
        gate_of(model, layer, "int").log_alpha.data = torch.linspace(-1, 1, INTERMEDIATE).round(decimals=1)
    per_unit = 2 * SIZE + 1
    num_kept = 50
    target = 1 - (model.num_parameters() - (NUM_LAYERS * INTERMEDIATE - num_kept) * per_unit) / model.num_parameters()
    decisions = decide_at_target(model, target - 1e-9)
    rank = []
    for layer in range(NUM_LAYERS):
        norms = model.encoder.layers[layer].feed_forward.output_dense.weight.norm(dim=0)
        log_alpha = gate_of(model, layer, "int").log_alpha
        rank += [(log_alpha[i].item(), norms[i].item(), layer, i) for i in range(INTERMEDIATE)]
    expected = {(layer, i) for _, _, layer, i in sorted(rank, reverse=True)[:num_kept]}
    is_open = [decisions.open[gate_of(model, layer, "int")] for layer in range(NUM_LAYERS)]
    assert {(layer, i) for layer, kept in enumerate(is_open) for i in kept.nonzero().flatten().tolist()} == expected
    cut = sorted(rank, reverse=True)
    assert cut[num_kept - 1][0] == cut[num_kept][0], "the cut has to fall into a tie, or the test shows nothing"
    small = compact(model, target - 1e-9)
    for layer, kept in enumerate(is_open):
        weight = model.encoder.layers[layer].feed_forward.intermediate_dense.weight[kept]
        assert torch.equal(small.encoder.layers[layer].feed_forward.intermediate_dense.weight, weight)


def test_a_unit_kept_only_for_the_target_carries_0():
    model = gated(dense("wavlm"), ("mha", "ffn", "qk", "vo", "int"))
    for layer in range(NUM_LAYERS):
        gate_of(model, layer, "int").log_alpha.data = torch.linspace(-6.0, -3.0, INTERMEDIATE)
        gate_of(model, layer, "vo").log_alpha.data[::2] = -3.0
        gate_of(model, layer, "qk").log_alpha.data[::2] = -3.5
    target = 0.1
    assert deterministic_sparsity(model) > target + 0.1
    small = compact(model, target)
    assert 1 - small.num_parameters() / model.config.dense_num_parameters < target + 0.01
    for layer in small.encoder.layers:
        assert layer.feed_forward.intermediate > 0
        assert not layer.feed_forward.output_dense.weight.any()
        assert layer.feed_forward.intermediate_dense.weight.any()
        zero_columns = (layer.attention.out_proj.weight == 0).all(0)
        assert zero_columns.sum() == NUM_HEADS * HEAD_DIM / 2
    # So the outputs are still those of the masked model.
    assert_same(model, small)


@both_norm_orders
def test_a_model_larger_than_its_gates_ask_for_still_computes_the_same(family, norm_order):
    model = dense(family, norm_order)
    model.attach_gates(("vo", "qk", "int"))
    model.eval()
    _set_pattern(model, ("mixed",) * 20, seed=5)
    target = deterministic_sparsity(model) - 0.1
    assert_same(model, compact(model, target))


def test_blocks_that_overshoot_are_opened_from_the_best():
    model = gated(dense("wavlm"), DEFAULT_UNITS)
    ranks = {
        (0, "mha"): -3.0,
        (0, "ffn"): -6.0,
        (1, "mha"): -5.5,
        (1, "ffn"): -2.5,
        (2, "mha"): -4.0,
        (2, "ffn"): -3.5,
    }
    for (layer, unit), log_alpha in ranks.items():
        gate_of(model, layer, unit).log_alpha.data.fill_(log_alpha)
    assert deterministic_sparsity(model) > 0.5
    by_rank = sorted(ranks, key=ranks.get, reverse=True)
    previous = 0
    for target in (0.6, 0.5, 0.4, 0.3, 0.2):
        small = assert_meets(model, target)
        layers = small.config.shape.layers
        is_there = [
            layers[layer].attention is not None if unit == "mha" else layers[layer].intermediate is not None
            for layer, unit in by_rank
        ]
        num_open = sum(is_there)
        assert is_there == [True] * num_open + [False] * (len(ranks) - num_open)
        assert num_open >= previous
        previous = num_open
    assert num_open > 2


def test_open_blocks_that_leave_too_much_are_closed_from_the_worst():
    model = gated(dense("hubert"), ("mha", "ffn"))
    ranks = {(0, "mha"): 3.0, (0, "ffn"): 0.5, (1, "mha"): 1.5, (1, "ffn"): 2.5, (2, "mha"): 1.0, (2, "ffn"): 2.0}
    for (layer, unit), log_alpha in ranks.items():
        gate_of(model, layer, unit).log_alpha.data.fill_(log_alpha)
    small = compact(model, 0.2)
    gone = {(number, "mha") for number, layer in enumerate(small.config.shape.layers) if layer.attention is None}
    gone |= {(number, "ffn") for number, layer in enumerate(small.config.shape.layers) if layer.intermediate is None}
    assert gone == set(sorted(ranks, key=ranks.get)[: len(gone)])
    sizes = {"mha": 4 * (SIZE + 1) * SIZE, "ffn": (2 * SIZE + 1) * INTERMEDIATE + SIZE}
    removed = sum(sizes[unit] for _, unit in gone)
    worst_kept = max(gone, key=ranks.get)
    assert removed >= 0.2 * model.config.dense_num_parameters > removed - sizes[worst_kept[1]]


# Around it


@both_norm_orders
def test_open_gates_give_the_dense_model_back(family, norm_order):
    model = dense(family, norm_order)
    state = copy.deepcopy(model.state_dict())
    small = compact(gated(model))
    assert small.is_stock and small.config.pruned_shape is None
    assert small.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in small.state_dict().items())


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("target", (None, 0.4))
def test_compact_leaves_the_model_alone(training, target):
    model = dense("hubert", variant=1)
    model.attach_gates(UNITS)
    randomize_(model, seed=4).train(training)
    model.encoder.pos_conv_embed.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state, config = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config.to_dict())
    random_state = torch.get_rng_state()
    small = compact(model, target)
    assert small.training is training
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model.config.to_dict() == config
    assert torch.equal(torch.get_rng_state(), random_state)
    # The small model's tensors are its own.
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_compact_reads_the_gates_of_evaluation_mode():
    model = dense("wavlm")
    model.attach_gates(UNITS)
    randomize_(model, seed=4)
    state, again = compact(model.train()).state_dict(), compact(model.eval()).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())


def test_gates_follow_the_mode_of_the_model():
    for training in (True, False):
        model = dense("wavlm").train(training)
        model.attach_gates(UNITS)
        assert all(gate.training is training for _, gate in model.named_gates())


def test_compact_keeps_the_dtype():
    model = gated(dense("wavlm").to(torch.bfloat16))
    close(model, 1, "vo", head_dims(0))
    assert all(gate.log_alpha.dtype is torch.float32 for _, gate in model.named_gates())
    small = compact(model)
    assert {parameter.dtype for parameter in small.parameters()} == {torch.bfloat16}


def test_compact_without_gates_is_refused():
    with pytest.raises(ValueError, match=r"no gates.*attach_gates"):
        compact(dense("wavlm"))


@both_norm_orders
def test_channel_gates_need_a_norm_over_time(family, norm_order):
    model = dense(family, norm_order, feature_norm="layer")
    with pytest.raises(ValueError, match=r"'conv'.*feat_extract_norm='group'"):
        model.attach_gates(("int", "conv"))
    assert model.config.gates is None and not list(model.named_gates())


def test_unknown_units_are_refused():
    with pytest.raises(ValueError, match=r"Unknown units \['layers'\].*mha, head, qk, vo, ffn, int, conv"):
        dense("wavlm").attach_gates(("int", "layers"))


def test_attaching_twice_is_refused():
    model = gated(dense("wavlm"), ("int",))
    with pytest.raises(ValueError, match=r"already has gates on \('int',\)"):
        model.attach_gates()
    model.detach_gates()
    model.attach_gates()
