"""Layer by layer to a shape: exact where nothing is lost, and cut as computed."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hf_prunable import AttentionShape, LayerShape, OneShotConfig, PrunedShape, refit_
from hf_prunable.modeling.gated import GatedLinear
from hf_prunable.one_shot.layerwise import LayerwisePruning
from hf_prunable.pruning.compaction import cut_out
from hf_prunable.truncation.truncated_model import truncate
from tests.helpers.one_shot_models import (
    CHANNELS,
    DENSE_ATTENTION,
    FAST,
    NARROW,
    RAGGED,
    SHAPES,
    VARIANTS,
    assert_near,
    captured_inputs,
    hidden_states,
    make_clips,
    variant,
)
from tests.helpers.tiny_models import FAMILIES, HEADS, NORM_ORDERS, pruned_shapes, tiny_config, tiny_prunable


CLIPS = make_clips()
# Rounding of float32 through changes of basis and least squares.
TOLERANCE = 2e-5


@torch.no_grad()
def prune(student, teacher, shape, config=FAST, clips=CLIPS):
    """The small model, and the working model it was cut from."""
    working = copy.deepcopy(student)
    cut = LayerwisePruning(working.base_model, teacher.base_model, clips, config).prune_(shape)
    assert cut.shape == shape
    return cut_out(working, cut), working


def fit_into(shape, present):
    """The largest shape that fits into two shapes; heads that are not in both are gone."""
    layers = []
    for wanted, layer in zip(shape.layers, present.layers, strict=True):
        attention = intermediate = None
        if wanted.attention is not None and layer.attention is not None:
            one, two = (
                {head: widths for head, *widths in zip(part.heads, part.query_key, part.value_output, strict=True)}
                for part in (wanted.attention, layer.attention)
            )
            heads = sorted(set(one) & set(two))
            pairs = [[min(widths) for widths in zip(one[head], two[head], strict=True)] for head in heads]
            attention = AttentionShape(
                tuple(heads), tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
            )
        if wanted.intermediate is not None and layer.intermediate is not None:
            intermediate = min(wanted.intermediate, layer.intermediate)
        layers.append(LayerShape(attention, intermediate))
    return PrunedShape(present.conv_channels, tuple(layers))


@pytest.mark.parametrize("name", VARIANTS)
def test_with_nothing_removed_outputs_stay(name):
    model = variant(name)
    small, working = prune(model, model, model.config.shape)
    assert_near(small, model, CLIPS, TOLERANCE)
    assert_near(working, model, make_clips(3, 600, seed=1), 1e-4)


@pytest.mark.parametrize("name", ["wavlm-post-group", "hubert-pre-layer", "adapters", "wav2vec2-post-ragged"])
def test_with_nothing_removed_reconstruction_is_harmless(name):
    model = variant(name)
    small, _ = prune(model, model, model.config.shape, replace(FAST, reconstruction_steps=150))
    for one, two in zip(hidden_states(small, CLIPS), hidden_states(model, CLIPS), strict=True):
        assert float((one - two).square().mean()) < 1e-5 * float(two.square().mean())


@pytest.mark.parametrize(("wanted", "steps"), [("ragged", 5), ("narrow", 0)])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_small_model_is_the_working_model(name, wanted, steps):
    """Also what the statistics of later layers saw: the streams hold the hidden states of the small model."""
    model = variant(name)
    shape = fit_into(SHAPES[wanted], model.config.shape)
    before = copy.deepcopy(model.state_dict())
    working = copy.deepcopy(model)
    with torch.no_grad():
        pruning = LayerwisePruning(working, model, CLIPS, replace(FAST, reconstruction_steps=steps))
        cut = pruning.prune_(shape)
        small = cut_out(working, cut)
    assert small.config.shape == shape
    small.config.shape.validate(small.config)
    last = hidden_states(small, CLIPS)[3]
    torch.testing.assert_close(pruning.stream.states, last, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(pruning.teacher_stream.states, hidden_states(model, CLIPS)[3], rtol=0, atol=TOLERANCE)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_working_model_is_the_small_one(family, norm_order):
    """With all blocks there: heads, dimensions and units that are removed are 0 in the working model."""
    model = tiny_prunable(family, norm_order)
    layers = (
        LayerShape(AttentionShape((0, 1, 3), (1, 5, 0), (3, 6, 2)), 11),
        LayerShape(AttentionShape((), (), ()), 0),
        LayerShape(AttentionShape((0, 2), (0, 0), (1, 6)), 40),
    )
    small, working = prune(model, model, PrunedShape(CHANNELS, layers))
    assert_near(working, small, CLIPS, 1e-5)
    assert_near(working, small, make_clips(2, 700, seed=4), 1e-5)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5, phases=[Phase.generate])
@given(data=st.data())
def test_any_shape(family, norm_order, data):
    model = variant(f"{family}-{norm_order}-group")
    config = tiny_config(family, norm_order, prunable=True)
    shape = data.draw(pruned_shapes(config))
    small, _ = prune(model, model, shape, clips=CLIPS[:6])
    assert small.config.shape == shape
    assert all(torch.isfinite(states).all() for states in hidden_states(small, CLIPS[:2]))
    # Again, to a shape within the first one.
    drawn = data.draw(pruned_shapes(config))
    channels = tuple(map(min, drawn.conv_channels, shape.conv_channels))
    again = replace(fit_into(drawn, shape), conv_channels=channels)
    smaller, _ = prune(small, model, again, clips=CLIPS[:6])
    assert smaller.config.shape == again


@pytest.mark.parametrize("name", ["wavlm-post-group", "hubert-pre-layer", "wav2vec2-post-layer", "adapters"])
def test_output_layers_are_least_squares_of_the_teachers_stream(name):
    """Each output layer of the result, against lstsq on the frames that the small model itself computes."""
    model = variant(name)
    config = replace(FAST, ridge=1e-10)
    small, _ = prune(model, model, RAGGED, config)
    layer, teacher = small.encoder.layers[0], model.encoder.layers[0]
    modules = [layer, layer.attention.out_proj, layer.feed_forward.output_dense]
    stream, contexts, activations = captured_inputs(small, modules, CLIPS)
    (teacher_stream,) = captured_inputs(model, [teacher], CLIPS)

    def check(features, states, targets, output_layer):
        features = features.flatten(0, 1).double()
        data = torch.cat((features, torch.ones(len(features), 1)), dim=1)
        wanted = (targets - states).flatten(0, 1).double()
        residual = wanted - data @ torch.linalg.lstsq(data, wanted).solution
        actual = wanted - (features @ output_layer.weight.double().T + output_layer.bias.double())
        assert float(actual.square().sum()) == pytest.approx(float(residual.square().sum()), rel=1e-4)

    with torch.no_grad():
        read = teacher.layer_norm(teacher_stream) if teacher.pre_norm else teacher_stream
        sums = teacher_stream + teacher.attention(read)[0]
        check(contexts, stream, sums, layer.attention.out_proj)
        between, _ = layer.add_attention(stream)
        teacher_between, _ = teacher.add_attention(teacher_stream)
        read = teacher.final_layer_norm(teacher_between) if teacher.pre_norm else teacher_between
        check(activations, between, teacher_between + teacher.feed_forward(read), layer.feed_forward.output_dense)


@pytest.mark.parametrize("options", [{}, {"conv_bias": True}, {"norm_order": "pre"}])
@pytest.mark.parametrize("family", FAMILIES)
def test_channels(family, options):
    """The cut convolutions are the working ones, and better than those with the first channels as they are."""
    model = tiny_prunable(family, feature_norm="group", **options)
    shape = PrunedShape((8, 9, 20), model.config.shape.layers)
    small, working = prune(model, model, shape)
    assert_near(working, small, CLIPS, 1e-5)
    assert_near(working, small, make_clips(2, 700, seed=4), 1e-5)
    for name in ("0.layer_norm", "0.conv"):
        for kind in ("weight", "bias"):
            rows = dict(small.named_parameters()).get(f"feature_extractor.conv_layers.{name}.{kind}")
            full = dict(model.named_parameters()).get(f"feature_extractor.conv_layers.{name}.{kind}")
            assert (rows is None) == (full is None)
            # The first convolution reads audio, and keeps rows as they are.
            assert rows is None or all(any(torch.equal(row, other) for other in full) for row in rows)
    # Again, although the teacher has channels that the student has lost.
    smaller, working = prune(small, model, PrunedShape((5, 6, 20), shape.layers))
    assert_near(working, smaller, CLIPS, 1e-5)
    plain, _ = prune(model, model, shape, replace(FAST, ridge=1e6))
    with torch.no_grad():
        target, *found = (one.feature_extractor(CLIPS) for one in (model, small, plain))
    errors = [float((one - target).square().mean()) for one in found]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
def test_a_bias_alone_is_the_mean_of_what_is_missing(norm_order):
    model = tiny_prunable("hubert", norm_order)
    nothing = AttentionShape((), (), ())
    layers = (LayerShape(nothing, 40), *model.config.shape.layers[1:])
    small, _ = prune(model, model, PrunedShape(CHANNELS, layers))
    (states,) = captured_inputs(model, [model.encoder.layers[0]], CLIPS)
    layer = model.encoder.layers[0]
    with torch.no_grad():
        output = layer.attention(layer.layer_norm(states) if layer.pre_norm else states)[0]
    expected = output.flatten(0, 1).mean(0)
    torch.testing.assert_close(small.encoder.layers[0].attention.out_proj.bias.detach(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_keep_their_weights(family):
    for head in HEADS[family][1:]:
        model = tiny_prunable(family, head=head)
        small, _ = prune(model, model, NARROW)
        state = model.state_dict()
        own = [key for key in state if not key.startswith(model.base_model_prefix + ".")]
        assert own
        for key in own:
            assert torch.equal(small.state_dict()[key], state[key])
        assert type(small) is type(model)
        if family == "wavlm":
            assert small.base_model.encoder.layers[0].attention.rel_attn_embed.weight.shape[1] == 4


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_students_of_deeper_teachers(family, norm_order):
    teacher = tiny_prunable(family, norm_order)
    student = truncate(teacher, 2)
    small, _ = prune(student, teacher, student.config.shape)
    assert_near(small, student, CLIPS, TOLERANCE)
    layers = (RAGGED.layers[0], LayerShape(None, 4))
    assert prune(student, teacher, PrunedShape(CHANNELS, layers))[0].config.shape.layers == layers


@pytest.mark.parametrize("name", ["wavlm-post-group", "hubert-pre-layer", "adapters"])
def test_a_refit_is_better_than_the_present_weights(name):
    """A huge ridge keeps the weights, and refits biases alone."""
    model = variant(name)
    # Behind the first layer; of the others little is left.
    target = hidden_states(model, CLIPS)[1]
    errors = []
    for ridge in (1e-3, 1e6):
        small, _ = prune(model, model, RAGGED, replace(FAST, ridge=ridge))
        errors.append(float((hidden_states(small, CLIPS)[1] - target).square().mean()))
    assert errors[0] < 0.9 * errors[1]


def test_two_runs_agree_to_the_bit():
    model = variant("wavlm-post-group")
    config = replace(FAST, reconstruction_steps=5)
    one, two = (prune(model, model, RAGGED, config)[0].state_dict() for _ in range(2))
    for key, value in one.items():
        assert torch.equal(value, two[key])


@pytest.mark.parametrize("batch_size", [1, 16])
def test_batches_of_clips_change_rounding_alone(batch_size):
    model = variant("wavlm-pre-layer")
    one, two = (prune(model, model, RAGGED, replace(FAST, batch_size=size))[0] for size in (5, batch_size))
    assert_near(one, two, CLIPS, 1e-3)


# The public refit


@pytest.mark.parametrize("name", VARIANTS)
def test_refit_of_a_model_to_itself_leaves_its_outputs(name):
    model = variant(name)
    small = copy.deepcopy(model)
    refit_(small, model, CLIPS, config=FAST)
    assert_near(small, model, CLIPS, TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head", ["base", "ctc"])
def test_refit_repairs_output_layers(head, dtype):
    """Disturbed output layers come back; shape, dtype, mode and gradients stay."""
    teacher = tiny_prunable("wavlm", head=head)
    small = copy.deepcopy(teacher)
    for layer in small.base_model.encoder.layers:
        for output in (layer.attention.out_proj, layer.feed_forward.output_dense):
            output.weight.data *= 0.5
            output.bias.data += 0.2
    small = small.to(dtype).train()
    small.base_model.encoder.layers[1].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in small.parameters()]
    frozen, state = copy.deepcopy(teacher.state_dict()), torch.get_rng_state()
    refit_(small, teacher, CLIPS, config=replace(FAST, ridge=1e-6))
    assert torch.equal(torch.get_rng_state(), state)
    assert small.training and small.dtype == dtype
    assert [parameter.requires_grad for parameter in small.parameters()] == flags
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, frozen[key])
    tolerance = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.6}[dtype]
    assert_near(small.float().eval(), teacher, CLIPS, tolerance)


def test_refit_of_models_that_do_not_fit():
    model = variant("wavlm-post-group")
    gated = copy.deepcopy(model)
    gated.attach_gates()
    prepared = copy.deepcopy(model)
    prepared.prepare_for_inference_()
    for small, teacher in (
        (gated, model),
        (model, gated),
        (prepared, model),
        (model, truncate(model, 2)),
        (model, tiny_prunable("wavlm", hidden_size=32)),
        (model, tiny_prunable("wavlm", "pre")),
        (torch.nn.Linear(2, 2), model),
    ):
        with pytest.raises(ValueError):
            refit_(small, teacher, CLIPS)


def test_default_config_reconstructs():
    model = variant("wavlm-post-group")
    small, _ = prune(model, model, PrunedShape(CHANNELS, (LayerShape(DENSE_ATTENTION, 15),) * 3))
    before = copy.deepcopy(small)
    refit_(small, model, CLIPS, config=OneShotConfig(reconstruction_steps=40))
    targets = hidden_states(model, CLIPS)[3]
    errors = [float((hidden_states(one, CLIPS)[3] - targets).square().mean()) for one in (small, before)]
    assert errors[0] < errors[1]
    assert isinstance(small.encoder.layers[0].feed_forward.output_dense, GatedLinear)
