"""Training checkpoints of an interrupted run: the last complete one is found, damaged ones are deleted."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from hf_prunable.runtime import checkpoints
from hf_prunable.runtime.checkpoints import (
    checkpoint_fault,
    common_checkpoint,
    last_whole_checkpoint,
    remove_damaged_checkpoints,
)


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
    assert broken.exists() and not caplog.records
    remove_damaged_checkpoints(tmp_path)
    assert last_whole_checkpoint(tmp_path) == before
    assert not broken.exists() and before.exists()
    (message,) = [record.getMessage() for record in caplog.records]
    assert "checkpoint-10 was cut short" in message and name in message


def test_only_what_is_newer_than_a_whole_checkpoint_is_deleted(tmp_path, caplog):
    paths = [make_checkpoint(tmp_path, step) for step in (5, 20, 100, 120)]
    for index in (0, 2, 3):
        cut(paths[index] / "optimizer.pt")
    remove_damaged_checkpoints(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths[:2]) and len(caplog.records) == 2
    remove_damaged_checkpoints(tmp_path / "missing")


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_first_process_deletes_and_tells_the_others(tmp_path, monkeypatch, world_size):
    sent = []
    monkeypatch.setattr(checkpoints, "broadcast_object_list", lambda found: sent.append(found) or found)
    before, broken = make_checkpoint(tmp_path, 5), make_checkpoint(tmp_path, 10)
    cut(broken / "optimizer.pt")
    args = SimpleNamespace(process_index=0, world_size=world_size, output_dir=str(tmp_path))
    assert common_checkpoint(args) == str(before)
    assert not broken.exists() and sent == [[str(before)]] * (world_size - 1)
    args.output_dir = str(tmp_path / "missing")
    assert common_checkpoint(args) is None


def test_another_process_takes_what_it_is_told_and_deletes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "broadcast_object_list", lambda found: ["told"])
    broken = make_checkpoint(tmp_path, 10)
    cut(broken / "optimizer.pt")
    args = SimpleNamespace(process_index=1, world_size=2, output_dir=str(tmp_path))
    assert common_checkpoint(args) == "told" and broken.exists()


def test_entries_with_other_names_are_left_alone(tmp_path, caplog):
    before = make_checkpoint(tmp_path, 5)
    others = [tmp_path / f"checkpoint-{name}" for name in ("best", "", "10.bak", "-3", "1e3", "²")]
    for path in others:
        path.mkdir()
    assert last_whole_checkpoint(tmp_path) == before
    remove_damaged_checkpoints(tmp_path)
    assert all(path.is_dir() for path in [before, *others]) and not caplog.records


def test_what_has_the_name_of_a_checkpoint_and_is_none(tmp_path, caplog):
    before = make_checkpoint(tmp_path, 5)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "checkpoint-10").write_text("a file")
    (tmp_path / "checkpoint-11").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "checkpoint-12").mkdir()
    assert last_whole_checkpoint(tmp_path) == before
    remove_damaged_checkpoints(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-5", "elsewhere"} and len(caplog.records) == 3
    assert (tmp_path / "elsewhere" / "kept").exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"global_step": "5"}', "null", ""])
def test_a_state_without_a_step_is_a_fault(tmp_path, content):
    path = make_checkpoint(tmp_path, 5)
    (path / "trainer_state.json").write_text(content)
    assert "trainer_state.json" in checkpoint_fault(path)


def test_changed_bytes_are_seen(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 5)
    content = bytearray((checkpoint / "optimizer.pt").read_bytes())
    # In the middle of the tensor.
    content[content.index(bytes(200)) + 100] ^= 1
    (checkpoint / "optimizer.pt").write_bytes(content)
    assert torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"].any()
    assert checkpoint_fault(checkpoint) == "optimizer.pt is damaged"


def test_a_checkpoint_without_weights_is_none(tmp_path):
    before, broken = make_checkpoint(tmp_path, 5), make_checkpoint(tmp_path, 10)
    (broken / "model.safetensors").unlink()
    assert checkpoint_fault(broken) == "its weights are missing" and last_whole_checkpoint(tmp_path) == before
    (broken / "pytorch_model_fsdp_0").mkdir()
    assert checkpoint_fault(broken) is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_folders_in_the_place_of_files_are_faults(tmp_path, name):
    checkpoint = make_checkpoint(tmp_path, 5)
    (checkpoint / name).unlink()
    (checkpoint / name).mkdir()
    assert name in checkpoint_fault(checkpoint)


def test_a_nested_state_is_a_fault(tmp_path):
    checkpoint = make_checkpoint(tmp_path, 5)
    (checkpoint / "trainer_state.json").write_text("[" * 100_000)
    assert "trainer_state.json" in checkpoint_fault(checkpoint)
