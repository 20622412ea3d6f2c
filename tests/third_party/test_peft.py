"""peft's methods on dense and pruned prunable models, and on truncated stock ones: training, saving, merging."""

import copy

import pytest
import torch

from hf_prunable import load_prunable, truncate
from tests.helpers.fresh_processes import ragged
from tests.helpers.processes import ROOT
from tests.helpers.tiny_models import tiny_inputs, tiny_prunable, tiny_stock
from tests.third_party.peft_methods import HEADER, KINDS, METHODS, PROJECTIONS


peft = pytest.importorskip("peft")
INPUTS = tiny_inputs(batch_size=2, samples=600)
MAKE = {
    "dense": lambda head: tiny_prunable("hubert", head=head),
    "pruned": lambda head: ragged("hubert", head),
    "truncated": lambda head: truncate(tiny_stock("hubert", head=head), 2),
}
LABELS = {"classification": torch.tensor([0, 1]), "ctc": torch.tensor([[1, 2], [3, 4]])}
# Merging adds products to the weights, which rounds.
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}


@torch.no_grad()
def output(model):
    return model(**INPUTS)[0]


def trained(model, config, labels):
    """The model with adapters after two steps, in evaluation mode."""
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config).train()
    optimizer = torch.optim.SGD([parameter for parameter in adapted.parameters() if parameter.requires_grad], lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(**INPUTS, labels=labels).loss.backward()
        optimizer.step()
    return adapted.eval()


def check(folder, model, method, labels):
    """The method trains the model, and what is saved and merged computes the same."""
    config = getattr(peft, method.config)(**method.arguments)
    untouched = copy.deepcopy(model)
    adapted = trained(model, config, labels)
    expected = output(adapted)
    assert not torch.equal(expected, output(untouched))
    adapted.save_pretrained(folder / "adapter")
    again = peft.PeftModel.from_pretrained(untouched, folder / "adapter").eval()
    assert torch.equal(output(again), expected)
    if not method.merges:
        with pytest.raises(NotImplementedError):
            adapted.merge_and_unload()
        return
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(output(merged), expected, **ROUNDING)
    merged.save_pretrained(folder / "merged")
    assert torch.equal(output(type(merged).from_pretrained(folder / "merged").eval()), output(merged))


# `.ci/third_party` runs the slow ones too.
@pytest.mark.parametrize(
    "kind", ["pruned", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dense", "truncated"))]
)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method(tmp_path, method, kind):
    if not hasattr(peft, method.config):
        pytest.skip(f"peft {peft.__version__} has no {method.config}")
    model = MAKE[kind]("classification")
    if kind in method.errors:
        with pytest.raises(ValueError, match=method.errors[kind]):
            check(tmp_path, model, method, LABELS["classification"])
    else:
        check(tmp_path, model, method, LABELS["classification"])


# Stock models for CTC cannot save adapters of all linear layers: peft asks them for input embeddings.
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in ("LoRA", "IA3", "LN tuning") for kind in KINDS]
    + [("LoRA, all linear layers", kind) for kind in ("dense", "pruned")],
)
def test_speech_recognition(tmp_path, name, kind):
    method = next(method for method in METHODS if method.name == name)
    check(tmp_path, MAKE[kind]("ctc"), method, LABELS["ctc"])


def test_stock_wavlm_does_not_use_adapters_of_its_projections(tmp_path):
    """It hands their weights to torch's attention; the prunable class calls the layers."""
    stock = tiny_stock("wavlm", head="classification")
    stock.save_pretrained(tmp_path)
    difference = {}
    for name, model in (("stock", stock), ("prunable", load_prunable(tmp_path, "AutoModelForAudioClassification"))):
        untouched = output(model.eval())
        options = peft.LoraConfig(r=2, target_modules=PROJECTIONS, init_lora_weights=False)
        difference[name] = (output(peft.get_peft_model(model, options).eval()) - untouched).abs().max().item()
    # Rounding, and more.
    assert difference["stock"] < 1e-5 and difference["prunable"] > 1e-2


def test_the_table_in_the_documentation():
    lines = (ROOT / "docs/guides/other_tools.md").read_text(encoding="utf-8").splitlines()
    start = lines.index(HEADER)
    assert lines[start + 2 : start + 2 + len(METHODS)] == [method.row for method in METHODS]
    assert not lines[start + 2 + len(METHODS)].startswith("|")
