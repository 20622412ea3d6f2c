"""Reloading a saved model in a fresh process."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_prunable.reporting import reload
from hf_prunable.reporting.reload import MemoryCheck, verify_reload
from tests.helpers.tiny_models import tiny_inputs, tiny_prunable
from tests.reporting.test_pruning_report import SHAPE


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    """A folder with a pruned model, an input and its hidden states."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = tiny_prunable("wavlm", pruned_shape=SHAPE.to_dict())
    model.save_pretrained(folder)
    input_values = tiny_inputs(padded=False)["input_values"]
    with torch.inference_mode():
        hidden_states = model(input_values, output_hidden_states=True).hidden_states
    return folder, input_values, hidden_states


@pytest.fixture
def in_process(monkeypatch):
    """Runs the child's code here: a fresh process takes seconds to import."""

    def run(command, **options):
        monkeypatch.setattr("sys.argv", command[2:])
        try:
            reload.main()
        except SystemExit as error:
            return subprocess.CompletedProcess(command, 1, stderr=str(error.code))
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr("hf_prunable.reporting.reload.subprocess.run", run)


def test_reload_in_a_fresh_process_is_exact(saved_model, tmp_path):
    other, missing = tmp_path / "other", str(tmp_path / "missing")
    tiny_prunable("hubert").save_pretrained(other)
    sources = [str(saved_model[0]), str(other), missing]
    reload = verify_reload(*saved_model, memory_check=MemoryCheck(sources, 16000))
    assert reload.largest_difference == 0.0
    if sys.platform == "linux":
        assert list(reload.memory) == sources[:2] and min(reload.memory.values()) > 0


def test_reload_with_a_missing_key_fails_in_a_fresh_process(saved_model, tmp_path):
    folder, input_values, hidden_states = saved_model
    incomplete, weights = _copy(folder, tmp_path / "incomplete")
    del weights["encoder.layers.1.layer_norm.weight"]
    save_file(weights, incomplete / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match=r"(?s)disagree. Weights missing: encoder\.layers\.1\.layer_norm\.weight"):
        verify_reload(incomplete, input_values, hidden_states)


def test_reload_of_tampered_weights_fails(saved_model, tmp_path, in_process):
    folder, input_values, hidden_states = saved_model
    assert verify_reload(folder, input_values, hidden_states).largest_difference == 0.0
    tampered, weights = _copy(folder, tmp_path / "tampered")
    weights["encoder.layers.0.feed_forward.output_dense.weight"][3, 2] += 0.1
    save_file(weights, tampered / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="computes other values: hidden state 1 differs by"):
        verify_reload(tampered, input_values, hidden_states)


def test_reload_with_a_surplus_key_fails(saved_model, tmp_path, in_process):
    folder, input_values, hidden_states = saved_model
    surplus, weights = _copy(folder, tmp_path / "surplus")
    save_file(weights | {"more": torch.ones(1)}, surplus / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"Configuration and weights .* disagree. Weights without a place: more"):
        verify_reload(surplus, input_values, hidden_states)


def test_reload_of_heads_and_other_dtypes(tmp_path, in_process):
    model = tiny_prunable("hubert", head="ctc").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    input_values = tiny_inputs(padded=False)["input_values"].to(torch.bfloat16)
    with torch.inference_mode():
        hidden_states = model(input_values, output_hidden_states=True).hidden_states
    assert verify_reload(tmp_path, input_values, hidden_states, "AutoModelForCTC").largest_difference == 0.0
    # Without its head, the model has keys that nothing takes.
    with pytest.raises(RuntimeError, match="lm_head"):
        verify_reload(tmp_path, input_values, hidden_states)


def test_differences_are_found_without_the_process(saved_model, monkeypatch):
    """The comparison itself, on outputs that a process might have left."""
    folder, input_values, hidden_states = saved_model
    states = [state.clone() for state in hidden_states]

    def leave(*outputs):
        def run(command, **options):
            save_file({str(number): output.clone() for number, output in enumerate(outputs)}, command[5])
            return subprocess.CompletedProcess(command, 0, stderr="")

        monkeypatch.setattr("hf_prunable.reporting.reload.subprocess.run", run)

    leave(*states)
    assert verify_reload(folder, input_values, hidden_states).largest_difference == 0.0
    leave(states[0] + 1e-6, *states[1:])
    assert 0 < verify_reload(folder, input_values, hidden_states).largest_difference < 2e-6
    states[2][0, 0, 0] = float("nan")
    leave(*states)
    with pytest.raises(RuntimeError, match="hidden state 2 differs by nan"):
        verify_reload(folder, input_values, hidden_states)
    leave(*states[:2])
    with pytest.raises(RuntimeError, match="has 2 hidden states, and in memory 4"):
        verify_reload(folder, input_values, hidden_states)
    leave(states[0][:1], *states[1:])
    with pytest.raises(RuntimeError, match="hidden state 0 has the shape"):
        verify_reload(folder, input_values, hidden_states)


def _copy(folder, target):
    """Copies a model; returns the new folder and the weights."""
    shutil.copytree(folder, target)
    return target, load_file(target / "model.safetensors")
