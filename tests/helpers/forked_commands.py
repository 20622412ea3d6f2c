"""A process that runs commands of `hf-prunable`, each in a fork, so that the libraries are imported once; no test module.

    python -m tests.helpers.forked_commands JOBS.json

A job has "name", "arguments" and "folder" to run in. FOLDER/NAME.out, .err and .status get what the command leaves.
"""

import gc
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

import torch

from hf_prunable.cli.main import COMMANDS, main


def run(job):
    """Runs a command in this process, which has been forked for it."""
    folder = Path(job["folder"])
    for number, suffix in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{job['name']}.{suffix}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.chdir(folder)
    sys.argv = ["/environment/bin/hf-prunable", *job["arguments"]]
    status = 0
    try:
        main()
    except SystemExit as exit:
        status = exit.code
    # As Python does it at the end of a process.
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status or 0


torch.set_num_threads(1)
for name in COMMANDS:
    importlib.import_module(f"hf_prunable.cli.{name.replace('-', '_')}")
# A collection in a fork would copy the memory of all objects.
gc.freeze()
for job in json.loads(Path(sys.argv[1]).read_text()):
    child = os.fork()
    if child == 0:
        os._exit(run(job))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    Path(job["folder"], f"{job['name']}.status").write_text(str(status))
sys.stdout.flush()
# Without the end of all that was imported.
os._exit(0)
