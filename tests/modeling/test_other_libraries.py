"""What peft and accelerate do to a model: adapters and offloaded weights."""

import copy

import pytest
import torch
from accelerate import cpu_offload, init_empty_weights, load_checkpoint_and_dispatch
from peft import LoraConfig, PeftModel, get_peft_model

from hf_prunable import compact, load_prunable, truncate
from tests.helpers.fresh_processes import ragged
from tests.helpers.tiny_models import FAMILIES, HEADS, randomize_, tiny_emptied, tiny_inputs, tiny_prunable, tiny_stock


INPUTS = tiny_inputs()
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def gated(family):
    model = tiny_prunable(family)
    model.attach_gates()
    return randomize_(model).eval()


KINDS = {"dense": tiny_prunable, "pruned": ragged, "emptied": tiny_emptied, "gated": gated}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
# What needs the layers themselves.
CHANGES = {
    "attach_gates": lambda model: model.attach_gates(),
    "compact": compact,
    "truncate": lambda model: truncate(model, 2),
    "prepare_for_inference_": lambda model: model.prepare_for_inference_(),
    "prepare_for_inference_ for export": lambda model: model.prepare_for_inference_(standard_layers_only=True),
}


def lora(**options):
    return LoraConfig(**{"r": 2, "target_modules": ["q_proj", "v_proj"]} | options)


@torch.no_grad()
def output(model):
    return model(**INPUTS)[0]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@EVERY_KIND
@EVERY_FAMILY
def test_a_model_with_adapters_saves_the_adapters(tmp_path, family, kind):
    model = KINDS[kind](family)
    model.save_pretrained(tmp_path / "model")
    untouched = output(model)
    model.add_adapter(lora(init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    assert names(tmp_path / "adapter") == ["adapter_config.json", "adapter_model.safetensors"]
    again = PeftModel.from_pretrained(load_prunable(tmp_path / "model"), tmp_path / "adapter").eval()
    assert torch.equal(output(again), output(model)) and not torch.equal(output(model), untouched)


@pytest.mark.parametrize("kind", ["dense", "pruned"])
def test_the_model_inside_a_peft_model_is_not_saved(tmp_path, kind):
    """Its names of weights are those of no model."""
    adapted = get_peft_model(KINDS[kind]("hubert"), lora())
    with pytest.raises(ValueError, match=r"Adapters are attached to .*q_proj.*merge_and_unload"):
        adapted.base_model.model.save_pretrained(tmp_path)
    adapted.save_pretrained(tmp_path / "adapter")
    assert "adapter_model.safetensors" in names(tmp_path / "adapter")


@pytest.mark.parametrize("way", ["peft", "add_adapter", "modules_to_save"])
@pytest.mark.parametrize("change", CHANGES)
def test_adapters_come_off_before_layers_change(change, way):
    model = tiny_prunable("wavlm", head="classification")
    if change == "compact":
        model.attach_gates()
    gates = copy.deepcopy(model.config.gates)
    if way == "add_adapter":
        model.add_adapter(lora())
    else:
        get_peft_model(model, lora(modules_to_save=["classifier"] if way == "modules_to_save" else None))
    with pytest.raises(ValueError, match=r"Adapters are attached to .*q_proj.*merge_and_unload.*unload"):
        CHANGES[change](model)
    assert model.config.gates == gates


def test_other_models_with_adapters():
    adapted = get_peft_model(tiny_prunable("wavlm"), lora())
    for refused in (compact, lambda model: model.to_stock()):
        with pytest.raises(ValueError, match="Adapters are attached"):
            refused(adapted)
    stock = tiny_stock("wavlm")
    stock.add_adapter(lora())
    with pytest.raises(ValueError, match="Adapters are attached"):
        truncate(stock, 1)
    # Merged, the model is as before.
    assert truncate(adapted.merge_and_unload(), 2).config.num_hidden_layers == 2


@pytest.mark.parametrize("standard_layers_only", [False, True])
@EVERY_FAMILY
def test_a_prepared_model_takes_no_adapters(family, standard_layers_only):
    for attach in (get_peft_model, type(tiny_prunable(family)).add_adapter):
        model = tiny_prunable(family).prepare_for_inference_(standard_layers_only)
        with pytest.raises(ValueError, match="prepare_for_inference_.*adapted.*Load its checkpoint again"):
            attach(model, lora())


@EVERY_FAMILY
def test_all_linear_adapts_the_ctc_head(family):
    model, stock = tiny_prunable(family, head="ctc"), tiny_stock(family, head="ctc")
    assert model.get_output_embeddings() is stock.get_output_embeddings() is None
    trained = [
        {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
        for adapted in (get_peft_model(each, lora(target_modules="all-linear")) for each in (model, stock))
    ]
    assert any("lm_head.lora_A" in name for name in trained[0])
    assert trained[0] == trained[1]


@pytest.mark.parametrize("name", ["out_proj", "output_dense"])
@EVERY_FAMILY
def test_layers_without_inputs_have_nothing_to_adapt(tmp_path, family, name):
    model = tiny_emptied(family)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"OutputBias\(24 outputs, no inputs to adapt: name it in `exclude_modules`\)"
    ):
        get_peft_model(copy.deepcopy(model), lora(target_modules=[name]))
    block = {"out_proj": "attention", "output_dense": "feed_forward"}[name]
    adapted = get_peft_model(
        model, lora(target_modules=["q_proj", name], exclude_modules=[f"encoder.layers.1.{block}.{name}"])
    )
    adapted.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load_prunable(tmp_path / "model").eval(), tmp_path / "adapter")
    assert torch.equal(output(again), output(adapted.eval()))


@pytest.mark.parametrize("kind", ["dense", "pruned", "emptied"])
@EVERY_FAMILY
def test_offloaded_models(tmp_path, family, kind):
    """They compute the same, and are saved with all weights."""
    model = KINDS[kind](family)
    expected = output(model)
    model.save_pretrained(tmp_path / "model")
    places = {name: "disk" if name == "encoder" else "cpu" for name, _ in model.named_children()}
    places |= dict.fromkeys((name for name, _ in model.named_parameters(recurse=False)), "cpu")
    offloaded = type(model).from_pretrained(tmp_path / "model", device_map=places, offload_folder=tmp_path / "disk")
    assert {parameter.device.type for parameter in offloaded.parameters()} == {"cpu", "meta"}
    assert torch.equal(output(offloaded), expected)
    offloaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").stat().st_size > 0
    again = load_prunable(tmp_path / "again").eval()
    assert torch.equal(output(again), expected)
    if kind == "dense":
        assert torch.equal(again.to_stock().state_dict()["masked_spec_embed"], model.masked_spec_embed)
        assert not any(tensor.is_meta for tensor in offloaded.to_stock().state_dict().values())
    for name, change in CHANGES.items():
        if name != "compact":
            with pytest.raises(ValueError, match="Some weights are offloaded. Load the model without `device_map`"):
                change(offloaded)
    everything = cpu_offload(model, execution_device="cpu")
    assert torch.equal(output(everything), expected)


@pytest.mark.parametrize("limit", ["5KB", "20KB", "40KB"])
@EVERY_FAMILY
def test_memory_that_ends_anywhere_in_a_model(tmp_path, family, limit):
    model = ragged(family, "ctc")
    model.save_pretrained(tmp_path / "model")
    offloaded = type(model).from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": limit}, offload_folder=tmp_path / "disk"
    )
    assert torch.equal(output(offloaded), output(model))


@pytest.mark.parametrize("include_buffers", [False, True])
@pytest.mark.parametrize("head", ["base", "ctc"])
@EVERY_FAMILY
def test_empty_weights_are_filled(tmp_path, family, head, include_buffers):
    assert head in HEADS[family]
    model = ragged(family, head)
    expected = output(model)
    model.save_pretrained(tmp_path)
    with init_empty_weights(include_buffers=include_buffers):
        empty = type(model)(copy.deepcopy(model.config))
    filled = load_checkpoint_and_dispatch(empty, tmp_path, device_map={"": "cpu"}).eval()
    assert torch.equal(output(filled), expected)
    with torch.device("meta"):
        filled = type(model)(copy.deepcopy(model.config))
    filled.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(output(filled.eval()), expected)
    with torch.device("meta"):
        filled = type(model)(copy.deepcopy(model.config))
    filled.to_empty(device="cpu").load_state_dict(model.state_dict())
    assert torch.equal(output(filled.eval()), expected)
    assert {tensor.device.type for tensor in filled.to("meta").buffers()} == {"meta"}
