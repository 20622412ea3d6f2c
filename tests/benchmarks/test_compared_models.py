"""Models of the benchmarks: stock, dense and pruned shapes, as loaded and prepared for inference."""

import pytest
import torch

from benchmarks.compared_models import ModelArguments, compared_models, speedups, summarize_times
from hf_prunable.modeling.gated import GatedLinear
from tests.helpers.tiny_shapes import ROWS, tiny_shape


def test_stock_dense_and_shapes_in_both_modes():
    models = compared_models([tiny_shape()])
    assert [model.name for model in models] == ROWS
    stock, dense, prepared, ragged, _ = (model.build() for model in models)
    assert type(stock).__module__.startswith("transformers.") and type(dense).__name__ == "PrunableWavLMModel"
    assert not any(isinstance(module, GatedLinear) for module in prepared.modules())
    for built, model in zip((stock, dense, ragged), (models[0], models[1], models[3]), strict=True):
        assert built.num_parameters() == model.num_parameters and not built.training
    assert models[1].num_parameters > 1.5 * models[3].num_parameters
    assert models[1].macs(1.0, 4) == 4 * models[1].macs(1.0) > 4 * models[3].macs(1.0)
    state = torch.get_rng_state()
    again = models[3].build("bfloat16")
    assert torch.equal(torch.get_rng_state(), state) and again.dtype == torch.bfloat16
    assert torch.equal(
        again.feature_projection.projection.weight, ragged.feature_projection.projection.weight.bfloat16()
    )


def test_times_are_summarized_over_the_rounds():
    rounds = [{"stock": 4.0, "small": 2.0}, {"stock": 40.0, "small": 10.0}, {"stock": 4.0, "small": 4.0}]
    assert speedups("small", rounds) == [2.0, 4.0, 1.0]
    assert summarize_times("small", rounds) == {"median_seconds": 4.0, "speedup": 2.0, "seconds": [2.0, 10.0, 4.0]}


def test_unknown_data_types_are_refused():
    with pytest.raises(ValueError, match="'int8'; choose from float32, bfloat16"):
        ModelArguments("out", dtype="int8")
