"""What is left of an interrupted run: whole checkpoints, and the settings they belong to."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_prunable.runtime.checkpoints import SETTINGS_FILE, checkpoint_fault, last_whole_checkpoint, remember_settings


def make_checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weight": torch.arange(100.0)}, path / "model.safetensors")
    torch.save({"state": torch.zeros(100)}, path / "optimizer.pt")
    torch.save({"cpu": torch.zeros(10)}, path / "rng_state.pth")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_whole_checkpoint_is_found(tmp_path):
    assert last_whole_checkpoint(tmp_path) is None
    assert last_whole_checkpoint(tmp_path / "missing") is None
    paths = [make_checkpoint(tmp_path, step) for step in (5, 20, 100)]
    # By number, and not by name.
    assert last_whole_checkpoint(tmp_path) == paths[2]
    assert checkpoint_fault(paths[0]) is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_checkpoint_cut_short_is_deleted_by_name(tmp_path, caplog, name, how):
    before, broken = make_checkpoint(tmp_path, 5), make_checkpoint(tmp_path, 10)
    if how == "cut":
        cut(broken / name)
    elif name == "trainer_state.json":
        (broken / name).unlink()
    else:
        pytest.skip("the Trainer writes its state after everything else")
    assert last_whole_checkpoint(tmp_path) == before
    assert not broken.exists() and before.exists()
    (message,) = [record.getMessage() for record in caplog.records]
    assert "checkpoint-10 was cut short" in message and name in message


def test_settings_are_remembered_and_compared(tmp_path, caplog):
    folder = tmp_path / "made" / "run"
    settings = {"target_sparsity": [0.4, 0.6], "units": ("mha", "int"), "rate": 0.02}
    remember_settings(folder, settings)
    remember_settings(folder, settings)
    assert json.loads((folder / SETTINGS_FILE).read_text())["units"] == ["mha", "int"]
    changed = {"target_sparsity": [0.4, 0.7], "units": ("mha", "int"), "seed": 3}
    with pytest.raises(ValueError, match="interrupted run of other settings") as error:
        remember_settings(folder, changed)
    for difference in ("`rate` was 0.02 and is None", "`seed` was None and is 3", "was [0.4, 0.6] and is [0.4, 0.7]"):
        assert difference in str(error.value)
    assert "`units`" not in str(error.value) and "`--override`" in str(error.value)
    remember_settings(folder, changed, override=True)
    assert "Going on with changed settings: `rate` was" in caplog.text
    remember_settings(folder, changed)
