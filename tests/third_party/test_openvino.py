"""OpenVINO reads exported models and computes what PyTorch does, at sizes that were not traced."""

import pytest
import torch

from hf_prunable import export_onnx
from tests.helpers.fresh_processes import ragged
from tests.helpers.tiny_models import ALL_FAMILIES, tiny_emptied, tiny_inputs, tiny_prunable


openvino = pytest.importorskip("openvino")
# Of hidden states with values around 1, float32.
TOLERANCE = 1e-4
KINDS = {"dense": tiny_prunable, "ragged": ragged, "emptied": tiny_emptied}
# data2vec-audio has layer norms between its convolutions, whose channels are not pruned: see docs/guides/load_and_use.md.
CASES = [
    (family, kind, head)
    for family in ALL_FAMILIES
    for kind, head in (("dense", "base"), ("ragged", "ctc"), ("emptied", "classification"))
]


@pytest.mark.parametrize("attention_mask", [False, True])
@pytest.mark.parametrize(("family", "kind", "head"), CASES)
@torch.no_grad()
def test_outputs(tmp_path, family, kind, head, attention_mask):
    options = {"pruned_shape": None} if family == "data2vec_audio" else {}
    model = KINDS[kind](family, head=head, **options)
