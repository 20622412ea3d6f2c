"""What each process of tests/pruning/test_distributed.py runs; no test module.

torchrun --nproc_per_node 2 -m tests.helpers.distributed_script OPTIONS.json
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.pruning.constraint import Lagrangian
from hf_prunable.pruning.distillation import Distillation
from hf_prunable.pruning.held_out_similarity import HeldOutSimilarity
from hf_prunable.pruning.objective import PruningObjective
from hf_prunable.pruning.parameter_groups import parameter_groups
from hf_prunable.pruning.student import NOISE_OFF
from hf_prunable.pruning.trainer import PruningTrainer
from tests.helpers.speech_files import RATE
from tests.helpers.tiny_models import FAMILIES, NORM_ORDERS, tiny_prunable


class Clips(torch.utils.data.Dataset):
    """Random clips, a function of their number."""

    def __init__(self, count=10_000):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"input_values": torch.randn(200, generator=generator)}


def make_objective(family, norm_order):
    student, teacher = (tiny_prunable(family, norm_order, **NOISE_OFF) for _ in range(2))
    student.attach_gates()
    return PruningObjective(student, Distillation(teacher, student.config), Lagrangian())


def train(options, result):
    """Trains under whatever the launcher and Accelerate's environment variables ask for."""
    args = PruningTrainingArguments(**options["training"])
    objective = make_objective("wavlm", options["norm_order"])
    # Two ranks do not have the same number of them.
    held_out = Clips(5)
    similarity = None
    if args.evaluates:
        batches = torch.utils.data.DataLoader(held_out, batch_size=args.eval_batch_size)
        similarity = HeldOutSimilarity(objective.distillation.teacher, batches)
    data = {"train_dataset": Clips(), "eval_dataset": held_out}
    trainer = PruningTrainer(objective, args, RATE, [0.5], held_out_similarity=similarity, **data)
    trainer.train()
    logs = gather_object([trainer.state.log_history])
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, result)
        result.with_suffix(".json").write_text(json.dumps(logs))
        kind = type(trainer.model_wrapped).__name__
        result.with_suffix(".kind").write_text(f"{kind} {os.environ.get('WORLD_SIZE', '1')}")


def shard_all(options, result):
    """The gradients of all families and norm orders, a file each in the folder `result`."""
    result.mkdir(exist_ok=True)
    for family in FAMILIES:
        for norm_order in NORM_ORDERS:
            shard(make_objective(family, norm_order), result / f"{family}-{norm_order}.safetensors")


def shard(objective, result):
    """Gradients of one batch a rank with layers and objective sharded; with one process, of the mean of both batches.

    Also writes the names of the parameters of each optimizer group.
    """
    objective.train()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        mesh = init_device_mesh("cpu", (ranks,))
        for layer in objective.student.encoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(objective, mesh=mesh)
    for number in [dist.get_rank()] if ranks > 1 else range(2):
        objective.student.set_gate_noise(1, number)
        batch = torch.stack([Clips()[2 * number + item]["input_values"] for item in range(2)])
        loss = objective(batch, target=0.3)["loss"]
        (loss if ranks > 1 else loss / 2).backward()
    gradients = {name: value.grad for name, value in objective.named_parameters() if value.requires_grad}
    names = {id(value): name for name, value in objective.named_parameters()}
    groups = parameter_groups(
        objective, SimpleNamespace(weight_decay=0, gate_learning_rate=1, multiplier_learning_rate=1)
    )
    groups = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
    if ranks > 1:
        gradients = {name: gradient.full_tensor() for name, gradient in gradients.items()}
    if ranks == 1 or dist.get_rank() == 0:
        save_file(gradients, result)
        result.with_suffix(".json").write_text(json.dumps(groups))


def main():
    options = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    {"train": train, "shard": shard_all}[options["job"]](options, Path(options["result"]))
    if dist.is_initialized():
        # A process that exits while another still communicates with it, or with live communication threads, can crash.
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
