"""Several processes compute what one does."""

import json
import re
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.processes import helper_command, with_root
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS
from tests.helpers.training_logs import losses_of, step_entries


FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def launch(result, job, ranks=1, environment=None, **options):
    """Runs a job of the script in processes of their own."""
    plan = result.with_suffix(".options")
    plan.write_text(json.dumps({"job": job, "result": str(result), **options}))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    completed = subprocess.run(
        [*helper_command("distributed_script", *launcher), str(plan)],
        env={**with_root(), "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert completed.returncode == 0, completed.stderr[-4000:]


def train(folder, name, ranks=1, environment=None, norm_order="post", **training):
    """Trains a tiny student; returns its weights, the log of each rank and what it was wrapped in."""
    training = {
        "output_dir": str(folder / name),
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "gate_learning_rate": 0.1,
        "learning_rate": 1e-3,
        "multiplier_learning_rate": 0.05,
        "save_strategy": "no",
        "disable_tqdm": True,
        **training,
    }
    result = folder / f"{name}.safetensors"
    launch(result, "train", ranks, environment, norm_order=norm_order, training=training)
    logs = json.loads(result.with_suffix(".json").read_text())
    return load_file(result), logs, result.with_suffix(".kind").read_text()


def evaluations(log):
    """Losses and similarities of a log on the held-out clips, by step."""
    return {
        entry["step"]: {name: value for name, value in entry.items() if re.match("eval_(loss|cos|rel)", name)}
        for entry in log
        if "eval_loss" in entry
    }


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
def test_two_processes_are_one_with_twice_the_accumulation(tmp_path, norm_order):
    options = {
        "norm_order": norm_order,
        "max_steps": 50,
        "use_cpu": True,
        "eval_steps": 20,
        "per_device_eval_batch_size": 2,
        "environment": {"ACCELERATE_USE_CPU": "true"},
    }
    state, (log,), kind = train(tmp_path, "one", gradient_accumulation_steps=2, **options)
    states, logs, kinds = train(tmp_path, "two", ranks=2, **options)
    assert kind.endswith(" 1") and kinds == "DistributedDataParallel 2"
    found, expected = [evaluations(rank) for rank in logs], evaluations(log)
    assert found[0] == found[1] and list(expected) == list(found[0]) == [20, 40, 50]
    for step, values in expected.items():
        # The Trainer's mean loss weights batches of unequal size by the number of ranks.
        assert values.pop("eval_loss") > 0 < found[0][step].pop("eval_loss")
        assert len(values) == 6 and found[0][step] == pytest.approx(values, abs=1e-5), step
    log, logs = step_entries(log), step_entries(logs[0])
    for name in ("loss_with_constraint", "expected_sparsity", "grad_norm"):
        torch.testing.assert_close(
            torch.tensor([entry[name] for entry in logs]),
            torch.tensor([entry[name] for entry in log]),
            rtol=0,
            atol=1e-5,
        )
    assert state.keys() == states.keys()
    gates = [name for name in state if name.endswith("log_alpha")]
    assert gates
    for name in gates:
        torch.testing.assert_close(states[name], state[name], rtol=0, atol=1e-5)
    assert log[-1]["deterministic_sparsity"] > 0


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """Folders with the gradients of all models, of one process and of two that share the weights."""
    folder = tmp_path_factory.mktemp("gradients")
    for ranks in (1, 2):
        launch(folder / str(ranks), "shard", ranks)
    return folder


# On gloo, torch 2.7 adds up the gradients of two ranks where later versions average them.
GRADIENT_FACTOR = 2 if torch.__version__.startswith("2.7.") else 1


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sharded_gradients_are_those_of_one_process(gradients, family, norm_order):
    """FSDP2 itself; Accelerate turns it on for accelerators only."""
    one, two = (load_file(gradients / ranks / f"{family}-{norm_order}.safetensors") for ranks in "12")
    assert one.keys() == two.keys()
    assert any(name.endswith("log_alpha") for name in one) and "lagrangian.lambda_1" in one
    for name, gradient in one.items():
        assert gradient.abs().max() > 0 or "k_proj.bias" in name, name
        torch.testing.assert_close(two[name], GRADIENT_FACTOR * gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("norm_order", NORM_ORDERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sharded_parameters_are_in_the_groups_of_one_process(gradients, family, norm_order):
    one, two = (json.loads((gradients / ranks / f"{family}-{norm_order}.json").read_text()) for ranks in "12")
    weights, gates, multipliers = one
    assert two == one
    assert weights and not [name for name in weights if name.endswith("log_alpha")]
    assert gates and all(name.endswith("log_alpha") for name in gates)
    assert multipliers == ["lagrangian.lambda_1", "lagrangian.lambda_2"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="Accelerate turns FSDP2 on for accelerators only")
def test_fsdp2_takes_the_step_of_ddp(tmp_path):
    (state, log, kind), (sharded, sharded_log, sharded_kind) = (
        train(tmp_path, name, ranks=2, environment=environment, max_steps=3)
        for name, environment in (("ddp", {}), ("fsdp", FSDP2))
    )
    assert kind == "DistributedDataParallel 2" and sharded_kind == "FSDPPruningObjective 2"
    assert losses_of(step_entries(sharded_log[0])) == pytest.approx(losses_of(step_entries(log[0])), abs=1e-5)
    assert state.keys() == sharded.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(sharded[name], tensor, rtol=0, atol=1e-5, msg=name)
        assert sharded[name].dtype == torch.float32
