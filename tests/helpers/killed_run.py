"""run_prune.py that kills itself at a moment of its caller's choice; no test module.

    python -m tests.helpers.killed_run RECIPE.yaml '{"micro_batch": 17, "delay": 0.02}'
    python -m tests.helpers.killed_run RECIPE.yaml '{"save": 3}'
    python -m tests.helpers.killed_run RECIPE.yaml '{"cut": 2}'

The first is killed a moment after its 17th micro-batch, the second when its 3rd file of a checkpoint is half written, the
third when the model of its 2nd round of one-shot pruning is about to be cut out.
"""

import json
import os
import runpy
import signal
import sys
import threading
from pathlib import Path

import safetensors.torch
import torch

from tests.helpers.processes import ROOT


KILL = json.loads(sys.argv.pop())
SCRIPT = ROOT / "run_prune.py"


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def cut_a_file():
    """What torch or safetensors write n-th is truncated to its half."""
    written = []

    def cutting(save):
        def saved(what, path, *args, **kwargs):
            save(what, path, *args, **kwargs)
            written.append(path)
            if len(written) == KILL["save"]:
                os.truncate(path, Path(path).stat().st_size // 2)
                kill()

        return saved

    torch.save, safetensors.torch.save_file = cutting(torch.save), cutting(safetensors.torch.save_file)


def kill_at_a_micro_batch():
    from hf_prunable.pruning.trainer import PruningTrainer

    begun, training_step = [], PruningTrainer.training_step

    def counted(*args, **kwargs):
        begun.append(None)
        if len(begun) == KILL["micro_batch"]:
            threading.Timer(KILL["delay"], kill).start()
        return training_step(*args, **kwargs)

    PruningTrainer.training_step = counted


def kill_before_a_cut():
    from hf_prunable.one_shot import one_shot_pruning

    begun, cut_out = [], one_shot_pruning.cut_out

    def counted(*args, **kwargs):
        begun.append(None)
        if len(begun) == KILL["cut"]:
            kill()
        return cut_out(*args, **kwargs)

    one_shot_pruning.cut_out = counted


if "cut" in KILL:
    kill_before_a_cut()
elif "save" in KILL:
    # Before anything imports the functions by name.
    cut_a_file()
elif KILL:
    kill_at_a_micro_batch()
sys.argv[0] = str(SCRIPT)
runpy.run_path(str(SCRIPT), run_name="__main__")
