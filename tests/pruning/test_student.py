"""Loading a student: without noise, in float32, and never with weights that the checkpoint lacks."""

import pytest
import torch

from hf_prunable import load_prunable
from hf_prunable.modeling.loading import load_complete
from hf_prunable.pruning.student import NOISE_OFF, load_student, restore_noise_
from tests.helpers.tiny_models import FAMILIES, NOISE, NORM_ORDERS, tiny_inputs, tiny_stock


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_loaded_without_noise_and_gets_it_back(tmp_path, family, norm_order):
    tiny_stock(family, norm_order, **NOISE).save_pretrained(tmp_path)
    student, original = load_student(tmp_path)
    assert {name: getattr(student.config, name) for name in NOISE_OFF} == NOISE_OFF
    assert NOISE_OFF.keys() == NOISE.keys()
    assert {name: getattr(original, name) for name in NOISE} == NOISE
    dropouts = [module for module in student.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts and all(module.p == 0 for module in dropouts)
    audio = tiny_inputs(padded=False)["input_values"]
    with torch.no_grad():
        # SpecAugment, layer drop and dropouts would each make a difference.
        assert torch.equal(student.train()(audio)[0], student.eval()(audio)[0])
        assert not torch.equal(*[load_prunable(tmp_path).train(mode)(audio)[0] for mode in (True, False)])
    restore_noise_(student, original)
    assert {name: getattr(student.config, name) for name in NOISE} == NOISE


def test_a_student_is_loaded_in_float32(tmp_path):
    tiny_stock("wavlm").bfloat16().save_pretrained(tmp_path)
    student, _ = load_student(tmp_path)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


def test_a_checkpoint_that_is_not_there_is_named(monkeypatch):
    def from_pretrained(name):
        raise OSError("no connection")

    monkeypatch.setattr("hf_prunable.modeling.loading.AutoConfig.from_pretrained", from_pretrained)
    with pytest.raises(
        OSError, match="The model 'org/nowhere' cannot be loaded: it is no folder here, and on the Hub: no connection"
    ):
        load_student("org/nowhere")


class TestIncompleteCheckpoints:
    """transformers fills what is missing with random numbers and drops what does not fit."""

    def test_heads_are_left_out(self, tmp_path):
        tiny_stock("wavlm", head="xvector").save_pretrained(tmp_path)
        assert load_complete(tmp_path).encoder is not None

    def test_the_vector_of_spec_augment_may_be_missing(self, tmp_path):
        stock = tiny_stock("wavlm", mask_time_prob=0.0, mask_feature_prob=0.0)
        stock.config.mask_time_prob = 0.1
        stock.save_pretrained(tmp_path)
        assert load_complete(tmp_path).masked_spec_embed is not None

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_weight_is_missing(self, tmp_path, family):
        stock = tiny_stock(family)
        state = stock.state_dict()
        del state["encoder.layers.1.attention.q_proj.weight"]
        stock.save_pretrained(tmp_path, state_dict=state)
        with pytest.raises(ValueError, match=r"disagree. Weights missing: encoder.layers.1.attention.q_proj.weight"):
            load_complete(tmp_path)

    @pytest.mark.parametrize(
        "field, value, cause",
        [
            ("intermediate_size", 41, "of another size: encoder.layers.0"),
            ("num_hidden_layers", 2, "without a place: encoder.layers.2"),
            ("num_hidden_layers", 4, "missing: encoder.layers.3"),
        ],
    )
    def test_the_configuration_is_another_models(self, tmp_path, field, value, cause):
        stock = tiny_stock("wavlm")
        setattr(stock.config, field, value)
        stock.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=f"Configuration and weights of .* disagree. Weights {cause}.*together"):
            load_student(tmp_path)
