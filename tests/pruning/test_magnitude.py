"""Magnitude pruning: uniform widths, the largest weights, targets of both kinds, and what is refused."""

import pytest
import torch

from hf_prunable import Measure
from hf_prunable.modeling.size import PARAMETERS, UnitCounts
from hf_prunable.pruning.arguments import PruningArguments
from hf_prunable.pruning.magnitude import MagnitudePruning, keep_largest_weights, uniform_shape
from hf_prunable.pruning.stock_shape import width_at_target
from hf_prunable.pruning.student import Student
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_emptied, tiny_inputs, tiny_prunable


# 39 frames, so that the products of attention do not outweigh the rest of the tiny model.
MACS = Measure("macs", 0.05)


@pytest.mark.parametrize("measure", [PARAMETERS, MACS], ids=["parameters", "macs"])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_is_met_within_one_unit(family, norm_order, measure):
    model = tiny_prunable(family, norm_order)
    small = keep_largest_weights(model, 0.3, measure)
    shape = small.config.shape
    widths = {width for layer in shape.layers for width in (*layer.attention.query_key, *layer.attention.value_output)}
    assert len(widths) == 1
    intermediates = [layer.intermediate for layer in shape.layers]
    assert intermediates[0] - intermediates[-1] <= 1 and intermediates == sorted(intermediates, reverse=True)
    size, dense = measure.count(small.config, UnitCounts.of(shape)), measure.dense(model.config)
    unit = {PARAMETERS: 49, MACS: 2 * 24 * 39}[measure]
    assert 0.7 * dense - unit <= size <= 0.7 * dense
    assert small.eval()(tiny_inputs()["input_values"]).last_hidden_state.isfinite().all()


def test_the_largest_weights_stay():
    model = tiny_prunable("hubert", head="ctc")
    small = keep_largest_weights(model, 0.4)
    assert type(small) is type(model) and torch.equal(small.lm_head.weight, model.lm_head.weight)
    for layer, dense in zip(small.hubert.encoder.layers, model.hubert.encoder.layers, strict=True):
        for module, rows, width in (("q_proj", True, 6), ("out_proj", False, 6), ("output_dense", False, 40)):
            parent, dense_parent = (
                (one.feed_forward if module == "output_dense" else one.attention) for one in (layer, dense)
            )
            kept, weight = getattr(parent, module).weight, getattr(dense_parent, module).weight
            kept, weight = (kept, weight) if rows else (kept.T, weight.T)
            groups = weight.split(width)
            for group, kept_group in zip(groups, kept.split(len(kept) // len(groups)), strict=True):
                largest = group.norm(dim=1).topk(len(kept_group)).indices.sort().values
                assert torch.equal(kept_group, group[largest])


def test_the_model_is_not_changed():
    model = tiny_prunable("wavlm")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    keep_largest_weights(model, 0.4)
    assert model.config.gates is None and before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("target", [0.0, 1.0, 0.9])
def test_targets_out_of_range_are_refused(target):
    with pytest.raises(ValueError, match=f"`target_sparsity` .*{target}"):
        uniform_shape(tiny_prunable("wavlm").config, target)


def test_a_truncated_model_counts_from_its_original_size():
    config = tiny_prunable("wavlm", num_hidden_layers=2, dense_num_hidden_layers=3).config
    with pytest.raises(ValueError, match="is 0.2, and 0.2.* of the original dense encoder is gone already"):
        uniform_shape(config, 0.2)
    assert len(uniform_shape(config, 0.5).layers) == 2


def test_a_pruned_model_is_refused():
    with pytest.raises(ValueError, match="was pruned before. Start from the original model"):
        uniform_shape(tiny_emptied("wavlm").config, 0.9)


@pytest.mark.parametrize("measure", [PARAMETERS, MACS], ids=["parameters", "macs"])
@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_shape_keeps_attention_and_the_largest_units_of_each_layer(family, norm_order, measure):
    model = tiny_prunable(family, norm_order)
    small = keep_largest_weights(model, 0.1, measure, stock_shape=True)
    width = small.to_stock().config.intermediate_size
    assert width == width_at_target(model.config, 0.1, measure) < 40
    for layer, dense in zip(small.encoder.layers, model.encoder.layers, strict=True):
        for name, weight in layer.attention.state_dict().items():
            assert torch.equal(weight, dense.attention.state_dict()[name])
        rows, weights = (block.feed_forward.intermediate_dense.weight for block in (layer, dense))
        norms = dense.feed_forward.output_dense.weight.norm(dim=0)
        assert torch.equal(rows, weights[norms.topk(width).indices.sort().values])


def test_a_narrow_model_is_narrowed_further():
    narrow = keep_largest_weights(tiny_prunable("wavlm"), 0.1, stock_shape=True)
    narrower = keep_largest_weights(narrow, 0.15, stock_shape=True)
    assert (
        narrower.is_stock and narrower.config.shape.layers[0].intermediate < narrow.config.shape.layers[0].intermediate
    )
    with pytest.raises(ValueError, match="A stock class cannot express the present shape"):
        keep_largest_weights(tiny_emptied("wavlm"), 0.9, stock_shape=True)


class ToyStages:
    def __init__(self, model):
        self.initial_student = Student(model)


@pytest.mark.parametrize("option", ["target_sparsity", "target_macs"])
def test_a_student_for_each_target(option):
    method = MagnitudePruning(PruningArguments("model", method="magnitude", mac_seconds=0.05, **{option: [0.2, 0.4]}))
    model = tiny_prunable("wavlm")
    method.prepare_(model)
    students = dict(method.students(ToyStages(model)))
    assert list(students) == [0.2, 0.4]
    for target, student in students.items():
        config = student.model.config
        assert target <= method.measure.sparsity(config, UnitCounts.of(config.shape)) < target + 0.03


def test_students_of_stock_shapes():
    options = PruningArguments("model", method="magnitude", target_sparsity=[0.1, 0.15], stock_shape=True)
    method, model = MagnitudePruning(options), tiny_prunable("wavlm")
    method.prepare_(model)
    assert "keep the intermediate units with the largest weights" in method.first_stage(None).name
    assert all(student.model.is_stock for _, student in method.students(ToyStages(model)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"stock_shape": True, "target_sparsity": [0.5]}, "removing all units of the kinds int removes at most"),
        ({"prune_units": ["int"]}, "`prune_units` is int, but the method 'magnitude' prunes qk, vo, int together"),
        ({"target_sparsity": [0.3, 0.9]}, "`target_sparsity` is 0.9, but a model with one dimension per head"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_run(options, message):
    method = MagnitudePruning(PruningArguments("model", method="magnitude", **options))
    with pytest.raises(ValueError, match=message):
        method.prepare_(tiny_prunable("wavlm"))


def test_a_model_with_gates_is_refused():
    model = tiny_prunable("wavlm")
    model.attach_gates()
    with pytest.raises(ValueError, match="The model has gates.* Compact the model first"):
        MagnitudePruning(PruningArguments("model", method="magnitude")).prepare_(model)
