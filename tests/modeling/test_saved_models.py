"""Models that version 0.1.0 saved load to the bit, with the import and with `trust_remote_code=True`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.fresh_processes import AUTO_CLASSES, Checkpoints, FreshProcesses
from tests.helpers.tiny_models import tiny_inputs


SAVED = sorted(path for path in (Path(__file__).parents[1] / "saved_models").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("saved"))
    checkpoints.inputs = tiny_inputs(batch_size=2, samples=200)
    for mode in ("import", "trust"):
        for folder in SAVED:
            head = folder.name.split("-")[1]
            checkpoints.job(mode, folder.name, AUTO_CLASSES[head], checkpoint=folder)
    return FreshProcesses(checkpoints)


@pytest.mark.parametrize("mode", ["import", "trust"])
@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: folder.name)
def test_a_model_that_was_saved_before_loads(processes, mode, folder):
    found = processes(mode, folder.name)
    assert found["class"].startswith("Prunable")
    assert not any(found["info"].values())
    saved, state = load_file(folder / "model.safetensors"), processes.state(mode, folder.name)
    assert saved.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in saved.items())
    # Processors round sums in an order of their own.
    expected = load_file(folder / "output.safetensors")["output"]
    torch.testing.assert_close(processes.output(mode, folder.name)["first"], expected, rtol=1e-5, atol=1e-5)
