"""Compaction: the small model computes what the masked one does, has the size that was counted, and meets targets."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_prunable import PrunedShape, compact, deterministic_sparsity, expected_sparsity
from hf_prunable.modeling.shape import AttentionShape, LayerShape
from hf_prunable.modeling.size import UnitCounts, count_macs, count_parameters
from hf_prunable.modeling.units import UNITS
from hf_prunable.pruning.decisions import GateDecisions
from tests.helpers.gated_models import (
    CLOSED,
    HEAD_DIM,
    INTERMEDIATE,
    NUM_HEADS,
    NUM_LAYERS,
    OPEN,
    SIZE,
    TOLERANCE,
    VARIANTS,
    assert_same,
    both_norm_orders,
    close,
    dense,
    deviation,
    gate_of,
    gated,
    head_dims,
    run,
    set_pattern,
)
from tests.helpers.tiny_models import FAMILIES, HEADS, NORM_ORDERS, randomize_, tiny_inputs, tiny_prunable


def assert_counted(masked, small):
    counted = count_parameters(small.config, UnitCounts.of(small.config.shape))
    assert counted == small.base_model.num_parameters() == GateDecisions(masked).size()
    assert deterministic_sparsity(masked) == 1 - counted / masked.config.dense_num_parameters


def compacted(model, **how):
    """`compact(model)`, checked against the masked model."""
    small = compact(model)
    assert_same(model, small, **how)
    assert_counted(model, small)
    assert small.config.gates is None and not list(small.named_gates())
    return small


# Any gate pattern whatever


MODES = st.sampled_from(("open", "closed", "mixed", "heads"))
PATTERNS = st.lists(MODES, min_size=20, max_size=20)
SUBSETS = st.lists(st.sampled_from(UNITS), min_size=1, unique=True).map(tuple)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
def test_masked_equals_small_after_any_gate_pattern(family, norm_order, data):
    units = data.draw(st.just(UNITS) | SUBSETS)
    variant = data.draw(st.integers(0, len(VARIANTS[family]) - 1))
    feature_norm = "group" if "conv" in units else data.draw(st.sampled_from(("group", "layer")))
    model = dense(family, norm_order, feature_norm, variant)
    for _ in range(data.draw(st.integers(1, 2), label="times pruned")):
        model.attach_gates(units)
        model.eval()
        set_pattern(model, data.draw(PATTERNS), data.draw(st.integers(0, 2**32)))
        attention = data.draw(st.sampled_from(("eager", "sdpa")))
        model = compacted(model, attention=attention, padded=data.draw(st.booleans()))


# Named patterns


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


# Targets in multiply-accumulates, and rounded widths


@both_norm_orders
def test_target_in_multiply_accumulates_is_met(family, norm_order):
    model = dense(family, norm_order)
    model.attach_gates(UNITS)
    randomize_(model, seed=1)
    for seconds in (1.0, 10.0):
        small = compact(model, target_macs=0.5, mac_seconds=seconds)
        config = small.config
        macs = count_macs(config, UnitCounts.of(config.shape), seconds)
        assert 0.5 <= 1 - macs / count_macs(config, config.dense_counts, seconds) < 0.51


def test_two_targets_are_refused():
    with pytest.raises(
        ValueError, match=r"`target_sparsity` is 0\.7 and `target_macs` is 0\.5.*Leave one of them out"
    ):
        compact(gated(dense("wavlm")), 0.7, target_macs=0.5)


def test_target_in_multiply_accumulates_counts_from_the_original_model():
    model = dense("hubert")
    model.attach_gates(UNITS)
    small = compact(randomize_(model, seed=1), target_macs=0.4)
    small.attach_gates(UNITS)
    with pytest.raises(ValueError, match=r"`target_macs` is 0\.3, and 0\.4\d* of the original dense encoder is gone"):
        compact(small, target_macs=0.3)
    again = compact(randomize_(small, seed=2), target_macs=0.6).config
    assert (
        0.6 <= 1 - count_macs(again, UnitCounts.of(again.shape)) / count_macs(again, model.config.dense_counts) < 0.61
    )


@both_norm_orders
def test_widths_rounded_up_change_no_output(family, norm_order):
    model = gated(dense(family, norm_order))
    for layer in range(NUM_LAYERS):
        close(model, layer, "int", *range(0, INTERMEDIATE, 10))
        close(model, layer, "vo", *range(layer, NUM_HEADS * HEAD_DIM, 5))
        close(model, layer, "qk", *range(layer, NUM_HEADS * HEAD_DIM, 6))
    assert compact(model).config.pruned_shape is not None
    rounded = compact(model, round_to=20)
    assert rounded.config.pruned_shape is None
    assert_same(model, rounded)


def test_rounding_tells_the_sparsity_asked_for_and_reached(caplog):
    model = dense("wavlm")
    model.attach_gates(UNITS)
    randomize_(model, seed=1)
    compact(model, 0.5)
    assert "multiples" not in caplog.text
    small = compact(model, 0.5, round_to=5)
    reached = 1 - small.num_parameters() / model.config.dense_num_parameters
    assert "multiples of 5, which takes the sparsity in parameters from 0.50" in caplog.text
    assert f"to {reached:.4f}. 0.5000 was asked for." in caplog.text
    caplog.clear()
    compact(model, round_to=5)
    assert f"from {deterministic_sparsity(model):.4f} to" in caplog.text and "asked" not in caplog.text


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
