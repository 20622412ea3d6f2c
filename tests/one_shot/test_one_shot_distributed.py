"""Several processes that share the clips compute what one does."""

import subprocess

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.one_shot_script import MODELS
from tests.helpers.processes import helper_command, with_root


# Of hidden states around 1, and of weights as a fraction of the largest of their tensor.
OUTPUT_TOLERANCE = 2e-5
WEIGHT_TOLERANCE = 1e-4


def launch(folder, ranks):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    completed = subprocess.run(
        [*helper_command("one_shot_script", *launcher), str(folder)],
        env={**with_root(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What one process and two have computed."""
    folder = tmp_path_factory.mktemp("processes")
    for ranks in (1, 2):
        launch(folder, ranks)
    return folder


@pytest.mark.parametrize("kind", ["rotate", "refit", "prune1", "prune5", "loss"])
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_are_one(folder, name, kind):
    one, two, other = (load_file(folder / f"{name}-{kind}-{part}.safetensors") for part in ("1-0", "2-0", "2-1"))
    assert one.keys() == two.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(two[key], other[key]), key
        # Prices of other clips, or values near a limit, can decide for another shape.
        if kind not in ("prune1", "loss"):
            # Rounding depends on the batches; directions of which a head has little enlarge it in its weights alone.
            tolerance = OUTPUT_TOLERANCE if key.startswith("states.") else WEIGHT_TOLERANCE * float(value.abs().max())
            torch.testing.assert_close(two[key], value, rtol=0, atol=tolerance, msg=key)


def test_fewer_clips_than_processes(folder):
    """One process goes on; two stop both, with one clear error."""
    assert (folder / "few-1-0.txt").read_text() == ""
    for rank in range(2):
        assert "processes" in (folder / f"few-2-{rank}.txt").read_text()
