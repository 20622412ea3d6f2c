"""Distillation: which hidden states are compared, how, and what of it is trained."""

import pytest
import torch

from hf_prunable.pruning.distillation import Distillation, default_layers, hidden_states_of, layer_loss
from hf_prunable.pruning.objective import PruningObjective
from hf_prunable.pruning.student import NOISE_OFF
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_config, tiny_inputs, tiny_prunable, tiny_stock


both_orders = pytest.mark.parametrize("norm_order", NORM_ORDERS)
every_family = pytest.mark.parametrize("family", FAMILIES)
AUDIO = tiny_inputs(batch_size=2, samples=400, padded=False)["input_values"]


def by_hand(student, teacher):
    """L1 plus one minus the cosine, frame by frame."""
    cosines = [
        float(a @ b / (a.norm() * b.norm())) for a, b in zip(student.flatten(0, 1), teacher.flatten(0, 1), strict=True)
    ]
    return float((student - teacher).abs().mean()) + 1 - sum(cosines) / len(cosines)


def projected_features(model, audio):
    output = model.feature_projection(model.feature_extractor(audio).transpose(1, 2))
    return output[0] if isinstance(output, tuple) else output


@every_family
@both_orders
@pytest.mark.parametrize("make", [tiny_stock, tiny_prunable])
@torch.no_grad()
def test_layer_0_is_the_feature_projection_and_not_the_first_hidden_state(family, norm_order, make):
    model = make(family, norm_order)
    states = hidden_states_of(model, AUDIO, [0])
    assert list(states) == [0]
    torch.testing.assert_close(states[0], projected_features(model, AUDIO), rtol=0, atol=0)
    first = model(AUDIO, output_hidden_states=True).hidden_states[0]
    assert states[0].shape == first.shape and (states[0] - first).abs().max() > 0.1


@every_family
@both_orders
@pytest.mark.parametrize("make", [tiny_stock, tiny_prunable])
@torch.no_grad()
def test_inner_layers_and_the_last_one(family, norm_order, make):
    model = make(family, norm_order)
    outputs = model(AUDIO, output_hidden_states=True)
    # The order and the selection do not matter.
    for layers in ([3, 1], [2], [0, 1, 2, 3], [3]):
        states = hidden_states_of(model, AUDIO, layers)
        assert list(states) == layers
        for layer in layers:
            if layer == 3:
                torch.testing.assert_close(states[3], outputs.last_hidden_state, rtol=0, atol=0)
            elif layer > 0:
                torch.testing.assert_close(states[layer], outputs.hidden_states[layer], rtol=0, atol=0)
    # Pre-norm models end with a norm that their last hidden state does not have.
    is_normed = (outputs.last_hidden_state - outputs.hidden_states[3]).abs().max() > 0.1
    assert is_normed == (norm_order == "pre")


@every_family
def test_no_hook_stays(family):
    model = tiny_prunable(family)

    def hooks():
        return [len(module._forward_hooks) for module in (model.feature_projection, model.encoder)]

    with torch.no_grad():
        model(AUDIO, output_hidden_states=True)
    before = hooks()
    hidden_states_of(model, AUDIO, [0, 1, 3])
    assert hooks() == before
    with pytest.raises(RuntimeError):
        # Too short for one frame.
        hidden_states_of(model, AUDIO[:, :5], [0, 3])
    assert hooks() == before


def test_loss_by_hand():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    assert layer_loss(student, teacher).item() == pytest.approx(by_hand(student, teacher), abs=1e-6)
    assert layer_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    # L1 is 1 and the cosine is -1 between +0.5 and -0.5.
    assert layer_loss(torch.full((1, 3, 4), 0.5), torch.full((1, 3, 4), -0.5)).item() == pytest.approx(3)
    # In half precision the mean over many values would be lost.
    assert layer_loss(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32


@every_family
@both_orders
def test_a_copy_of_the_teacher_has_no_loss_and_another_model_the_mean_over_layers(family, norm_order):
    teacher = tiny_stock(family, norm_order, seed=0)
    copy = tiny_prunable(family, norm_order)
    copy.load_state_dict(teacher.state_dict())
    distillation = Distillation(teacher, copy.config)
    assert distillation(copy, AUDIO).item() == pytest.approx(0, abs=2e-6)
    assert layer_loss(*[hidden_states_of(m, AUDIO, [3])[3] for m in (teacher, copy)]).item() < 2e-6

    other = tiny_prunable(family, norm_order, seed=1)
    targets = hidden_states_of(teacher, AUDIO, range(4))
    with torch.no_grad():
        states = hidden_states_of(other, AUDIO, range(4))
        expected = sum(by_hand(states[layer], targets[layer]) for layer in range(4)) / 4
        assert distillation(other, AUDIO).item() == pytest.approx(expected, rel=1e-5)
    chosen = Distillation(teacher, other.config, layers=[2])
    assert chosen(other, AUDIO).item() == pytest.approx(by_hand(states[2], targets[2]), rel=1e-5)


@every_family
@both_orders
@pytest.mark.parametrize("layers", [None, [0], [2]])
def test_convolutions_that_are_shared_run_once(family, norm_order, layers):
    teacher, student = tiny_stock(family, norm_order, seed=0), tiny_prunable(family, norm_order, seed=1)
    student.feature_extractor.load_state_dict(teacher.feature_extractor.state_dict())
    convolutions, runs = teacher.feature_extractor, []
    convolutions.register_forward_hook(lambda *args: runs.append(args))
    plain, shared = (Distillation(teacher, student.config, layers, shares_features=shares) for shares in (False, True))
    loss = shared(student, AUDIO)
    assert not runs and teacher.feature_extractor is convolutions
    assert torch.equal(loss, plain(student, AUDIO)) and len(runs) == 1
    loss.backward()
    assert student.feature_projection.projection.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "depth, layers",
    [(12, (0, 4, 8, 12)), (24, (0, 8, 16, 24)), (3, (0, 1, 2, 3)), (2, (0, 1, 2)), (1, (0, 1)), (8, (0, 3, 5, 8))],
)
def test_default_layers(depth, layers):
    assert default_layers(depth) == layers
    config = tiny_config("hubert", num_hidden_layers=depth, prunable=True)
    assert Distillation(tiny_stock("hubert", num_hidden_layers=1), config).layers == layers


def test_projections_start_as_the_identity_and_are_shared_from_layer_1_on():
    student = tiny_prunable("wavlm")
    shared = Distillation(tiny_stock("wavlm"), student.config, projections="shared")
    assert shared.groups == {0: "layer_0", 1: "shared", 2: "shared", 3: "shared"}
    assert list(shared.projections) == ["layer_0", "shared"]
    single = Distillation(tiny_stock("wavlm"), student.config, layers=(0, 2, 3), projections="each")
    assert list(single.projections) == ["layer_0", "layer_2", "layer_3"]
    for projection in [*shared.projections.values(), *single.projections.values()]:
        assert torch.equal(projection.weight, torch.eye(24)) and not projection.bias.any()
    # Without layer 0 there is nothing for its projection to do.
    deep = Distillation(tiny_stock("wavlm"), student.config, layers=[1, 3], projections="shared")
    assert list(deep.projections) == ["shared"]


def test_hidden_states_of_one_size_are_compared_without_projections():
    teacher, student = tiny_stock("wavlm", seed=0), tiny_prunable("wavlm", seed=1)
    distillation = Distillation(teacher, student.config, layers=(0, 1, 3))
    assert not list(distillation.parameters()) and not distillation.state_dict()
    targets, states = (hidden_states_of(model, AUDIO, (0, 1, 3)) for model in (teacher, student))
    with torch.no_grad():
        expected = sum(by_hand(states[layer].detach(), targets[layer].detach()) / 3 for layer in (0, 1, 3))
        assert distillation(student, AUDIO).item() == pytest.approx(expected, rel=1e-5)


def test_each_projection_acts_on_its_own_layers():
    teacher, student = tiny_stock("wavlm", seed=0), tiny_prunable("wavlm", seed=1)
    distillation = Distillation(teacher, student.config, layers=(0, 1, 3), projections="each")
    targets, states = (hidden_states_of(model, AUDIO, (0, 1, 3)) for model in (teacher, student))
    torch.manual_seed(0)
    with torch.no_grad():
        for projection in distillation.projections.values():
            projection.weight.normal_()
            projection.bias.normal_()
        expected = 0
        for layer in (0, 1, 3):
            projection = distillation.projections[f"layer_{layer}"]
            expected += by_hand(states[layer] @ projection.weight.T + projection.bias, targets[layer]) / 3
    assert distillation(student, AUDIO).item() == pytest.approx(expected, rel=1e-5)


@every_family
@both_orders
def test_another_depth_and_width(family, norm_order):
    teacher = tiny_stock(family, norm_order, num_hidden_layers=6, hidden_size=36, num_attention_heads=6)
    student = tiny_prunable(family, norm_order)
    distillation = Distillation(teacher, student.config)
    assert distillation.teacher_layers == {0: 0, 1: 2, 2: 4, 3: 6}
    for projection in distillation.projections.values():
        assert torch.equal(projection.weight, torch.eye(36, 24))
    targets = hidden_states_of(teacher, AUDIO, (0, 2, 4, 6))
    with torch.no_grad():
        states = hidden_states_of(student, AUDIO, range(4))
        padded = [torch.nn.functional.pad(states[layer], (0, 12)) for layer in range(4)]
        expected = sum(by_hand(padded[layer], targets[2 * layer]) for layer in range(4)) / 4
        assert distillation(student, AUDIO).item() == pytest.approx(expected, rel=1e-5)
    # The other way round, a deep student learns twice from one layer.
    deep = Distillation(student, teacher.config, layers=(0, 2, 3, 6))
    assert deep.teacher_layers == {0: 0, 2: 1, 3: 2, 6: 3}


@every_family
def test_the_teacher_is_not_trained_and_not_saved(family):
    teacher, student = tiny_stock(family), tiny_prunable(family, seed=1, **NOISE_OFF)
    teacher.train()
    distillation = Distillation(teacher, student.config, projections="shared")
    objective = PruningObjective(student, distillation)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    assert {name.split(".")[0] for name, _ in distillation.named_parameters()} == {"projections"}
    assert {name.split(".")[0] for name in distillation.state_dict()} == {"projections"}
    mine = {id(parameter) for parameter in objective.parameters()}
    assert not any(id(parameter) in mine for parameter in teacher.parameters())
    objective.train()
    assert student.training and distillation.training
    assert not any(module.training for module in teacher.modules())
    objective(AUDIO)["loss"].backward()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(projection.weight.grad.any() for projection in distillation.projections.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_the_teacher_moves_with_the_distillation():
    student = tiny_prunable("hubert")
    distillation = Distillation(tiny_stock("hubert"), student.config).to(torch.float64)
    assert {parameter.dtype for parameter in distillation.teacher.parameters()} == {torch.float64}
    assert distillation(student.double(), AUDIO.double()).isfinite()


@pytest.mark.parametrize("layers", [(0, 4), (-1,), ()])
def test_a_layer_that_does_not_exist(layers):
    config = tiny_config("wavlm", prunable=True)
    with pytest.raises(ValueError, match=r"must be in 0\.\.3, but are \["):
        Distillation(tiny_stock("wavlm"), config, layers=layers)


@pytest.mark.parametrize("field, values", [("conv_stride", (5, 2, 1)), ("conv_kernel", (10, 3, 3))])
def test_teacher_and_student_must_have_the_same_frames(field, values):
    config = tiny_config("wavlm", prunable=True, **{field: values})
    with pytest.raises(ValueError, match=rf"same frames, but `{field}` is .* and \[{values[0]}, "):
        Distillation(tiny_stock("wavlm"), config)


@every_family
@both_orders
@pytest.mark.parametrize("make", [tiny_stock, tiny_prunable])
def test_the_teacher_runs_up_to_the_last_layer_that_is_needed(family, norm_order, make):
    teacher, student = make(family, norm_order), tiny_prunable(family, norm_order)
    student.encoder.layers[0].feed_forward.output_dense.weight.data *= 1.5
    ran = []
    for number, layer in enumerate(teacher.encoder.layers, start=1):
        layer.register_forward_hook(lambda module, args, output, number=number: ran.append(number))
    distillation = Distillation(teacher, student.config, layers=(0, 2))
    loss = distillation(student, AUDIO)
    assert ran == [1, 2] and len(teacher.encoder.layers) == 3
    with torch.no_grad():
        targets, states = hidden_states_of(teacher, AUDIO, [0, 2]), hidden_states_of(student, AUDIO, [0, 2])
        expected = sum(layer_loss(states[layer], targets[layer]) for layer in (0, 2)) / 2
    assert expected > 0.01
    torch.testing.assert_close(loss, expected)
    Distillation(teacher, student.config)(student, AUDIO)
    assert ran[-3:] == [1, 2, 3]


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2"])
@torch.no_grad()
def test_an_adapter_after_the_teacher_s_encoder_hides_no_frame_of_padded_clips(family):
    student, plain = tiny_prunable(family, seed=1), tiny_prunable(family)
    adapter = type(plain)(tiny_config(family, prunable=True, add_adapter=True)).eval()
    assert not adapter.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    inputs = tiny_inputs()
    losses = []
    for teacher in (plain, adapter):
        distillation = Distillation(teacher, student.config)
        states = hidden_states_of(student, layers=distillation.layers, **inputs)
        losses.append(distillation.compare(states, **inputs))
    torch.testing.assert_close(*losses, rtol=0, atol=0)
