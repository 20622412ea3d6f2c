"""OpenVINO reads exported models and computes what PyTorch does, at sizes that were not traced."""

import pytest
import torch

from hf_prunable import export_onnx
from tests.helpers.tiny_models import ALL_FAMILIES, tiny_emptied, tiny_inputs, tiny_prunable


openvino = pytest.importorskip("openvino")
# float32 rounding of outputs around 1.
TOLERANCE = 1e-4
SIZES = ((1, 300), (3, 1111))


@pytest.mark.parametrize("attention_mask", [False, True])
@pytest.mark.parametrize(("make", "head"), [(tiny_prunable, "base"), (tiny_emptied, "ctc")], ids=["dense", "pruned"])
@pytest.mark.parametrize("family", ALL_FAMILIES)
@torch.no_grad()
def test_outputs(tmp_path, family, make, head, attention_mask):
    model = make(family, head=head)
    model.save_pretrained(tmp_path / "model")
    exported = export_onnx(
        tmp_path / "model",
        tmp_path / "model.onnx",
        attention_mask=attention_mask,
        check_seconds=(0.1,),
        latency_seconds=None,
    )
    # A CPU may compute in bfloat16 otherwise.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(exported.path, "CPU", precision)
    for batch_size, samples in SIZES:
        inputs = tiny_inputs(batch_size, samples, padded=attention_mask)
        names = ("input_values", "attention_mask") if attention_mask else ("input_values",)
        inputs = {name: inputs[name] for name in names}
        found = compiled({name: tensor.numpy() for name, tensor in inputs.items()})
        torch.testing.assert_close(torch.from_numpy(found[0]), model(**inputs)[0], rtol=0, atol=TOLERANCE)
