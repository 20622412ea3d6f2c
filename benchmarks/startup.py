"""What comes before the first result: time to import and to load, and the memory of loading and of a forward pass.

    python -m benchmarks startup --output_dir startup
    python -m benchmarks startup --output_dir startup --model wavlm-large --memory_seconds 10

Everything is measured in fresh processes, and times in turn. Weights are random. On the CPU, memory is that of the
process beyond what it had before; on a GPU, that of torch.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, HfArgumentParser
from transformers.utils import logging

from benchmarks import process_memory
from benchmarks.compared_models import ComparedModel, ModelArguments, compared_models
from benchmarks.process_memory import in_fresh_process
from benchmarks.result_files import save_result
from hf_prunable import load_prunable
from hf_prunable.modeling.auto import FAMILIES
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.reporting.provenance import library_versions, source_commit
from hf_prunable.runtime.evaluation_mode import evaluation_mode


logger = logging.get_logger("hf_prunable.benchmarks")

# A short clip first, because the first pass loads libraries.
FIRST_SECONDS = 1.0
TIMED_IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
MIB = 2**20


@dataclass
class StartupArguments(ModelArguments):
    """What to measure."""

    memory_seconds: float = field(default=30.0, metadata={"help": "Length of the clip that memory is measured with."})
    threads: int = field(default=1, metadata={"help": "Threads of the CPU."})
    repetitions: int = field(default=5, metadata={"help": "Processes for each time, whose median counts."})


def import_statements() -> dict[str, str]:
    """Imports of this library, and of the classes of transformers that it is made of."""
    classes = {
        getattr(module, name).stock_class.__name__
        for config_class, module in FAMILIES.items()
        for name in config_class.auto_classes.values()
    }
    return {
        "transformers": f"from transformers import {', '.join(sorted(classes))}",
        "hf_prunable": "import hf_prunable",
    }


def measure_imports(repetitions: int) -> dict[str, dict[str, Any]]:
    """Times both imports in fresh processes, in turn.

    Args:
        repetitions: Processes for each.

    Returns:
        Seconds of each process and their median.
    """
    seconds: dict[str, list[float]] = {name: [] for name in import_statements()}
    for _ in logging.tqdm(range(repetitions), desc="Importing", unit="round"):
        for name, statement in import_statements().items():
            command = [sys.executable, "-c", TIMED_IMPORT.format(statement)]
            completed = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[name].append(float(completed.stdout.split()[-1]))
    return {name: {"median_seconds": statistics.median(times), "seconds": times} for name, times in seconds.items()}


def load_saved(folder: str, is_stock: bool) -> dict[str, float]:
    """Loads a model from disk; to be called in a process of its own.

    Args:
        folder: With the model.
        is_stock: Whether to load it as the stock class.

    Returns:
        "seconds", and "peak_bytes" beyond what the process had before.
    """
    before = process_memory.reset_peak()
    start = time.perf_counter()
    (AutoModel.from_pretrained if is_stock else load_prunable)(folder)
    return {"seconds": time.perf_counter() - start, "peak_bytes": process_memory.peak() - before}


def measure_loading(models: Sequence[ComparedModel], dtype: str, repetitions: int) -> dict[str, dict[str, Any]]:
    """Saves the models and loads them in fresh processes, in turn.

    Args:
        models: None of them prepared, as such a model cannot be saved.
        dtype: Of the weights.
        repetitions: Processes for each.

    Returns:
        For each model the medians of seconds and of the peak of memory, and the runs.
    """
    runs: dict[str, list[dict[str, float]]] = {model.name: [] for model in models}
    with tempfile.TemporaryDirectory(prefix="hf_prunable-") as folder:
        for model in logging.tqdm(models, desc="Saving models", unit="model"):
            model.build(dtype).save_pretrained(f"{folder}/{model.name}")
        for _ in logging.tqdm(range(repetitions), desc="Loading", unit="round"):
            for model in models:
                runs[model.name].append(in_fresh_process(load_saved, f"{folder}/{model.name}", model.is_stock))
    return {
        name: {
            "median_seconds": statistics.median(run["seconds"] for run in of_model),
            "median_peak_bytes": statistics.median(run["peak_bytes"] for run in of_model),
            "runs": of_model,
        }
        for name, of_model in runs.items()
    }


def forward_memory(model: ComparedModel, options: StartupArguments) -> dict[str, int]:
    """Memory of one forward pass; to be called in a process of its own.

    Args:
        model: That runs.
        options: With the length of the clip.

    Returns:
        "weight_bytes", of weights and buffers, and "forward_bytes", the peak of a pass beyond what was there before.
    """
    built = model.build(options.dtype, options.device)
    tensors = [*built.parameters(), *built.buffers()]
    on_gpu = built.device.type == "cuda"
    with evaluation_mode([built], options.threads):
        for seconds in (FIRST_SECONDS, options.memory_seconds):
            audio = torch.randn(1, round(seconds * SAMPLING_RATE)).to(tensors[0])
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(built.device)
                before = torch.cuda.memory_allocated(built.device)
            else:
                before = process_memory.reset_peak()
            built(audio)
            peak = torch.cuda.max_memory_allocated(built.device) if on_gpu else process_memory.peak()
    return {
        "weight_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "forward_bytes": peak - before,
    }


def measure(options: StartupArguments) -> dict[str, Any]:
    """Measures imports, loading, and memory.

    Raises:
        ValueError: If there is no such model or shape.
    """
    shapes = options.load_shapes()
    all_models = logging.tqdm(compared_models(shapes), desc="Forward passes", unit="model")
    result = {
        **asdict(options),
        "machine": describe_machine(options.device, options.threads),
        "versions": library_versions(),
        "commit": source_commit(),
        "imports": measure_imports(options.repetitions),
        "loading": measure_loading(compared_models(shapes, prepared=False), options.dtype, options.repetitions),
        "memory": {model.name: in_fresh_process(forward_memory, model, options) for model in all_models},
    }
    del result["output_dir"], result["shapes_dir"]
    return result


def format_startup(result: dict[str, Any]) -> str:
    """Three tables, as Markdown.

    Args:
        result: As `measure` gives it.
    """
    lines = ["| import | seconds |", "| --- | ---: |"]
    lines += [f"| {name} | {row['median_seconds']:.2f} |" for name, row in result["imports"].items()]
    lines += ["", "| model | seconds to load | peak of memory, MiB |", "| --- | ---: | ---: |"]
    lines += [
        f"| {name} | {row['median_seconds']:.2f} | {row['median_peak_bytes'] / MIB:.0f} |"
        for name, row in result["loading"].items()
    ]
    clip = f"{result['memory_seconds']:g} s clip"
    lines += ["", f"| model | weights, MiB | forward pass, {clip}, MiB |", "| --- | ---: | ---: |"]
    lines += [
        f"| {name} | {row['weight_bytes'] / MIB:.0f} | {row['forward_bytes'] / MIB:.0f} |"
        for name, row in result["memory"].items()
    ]
    return (
        f"# {result['model']}, {result['dtype']}\n\n" + "\n".join(lines) + "\n\n"
        f"Times and peaks of loading are medians of {result['repetitions']} fresh processes. Imports: all classes of "
        "transformers that this library is made of, against the library itself, which imports them. Loading counts "
        "from where both are imported; its memory is that of the process, pages of the file among them. "
        f'"prepared": after `prepare_for_inference_()`.\n\nMeasured on: {result["machine"]}.\n'
    )


def main() -> None:
    (options,) = HfArgumentParser(StartupArguments).parse_args_into_dataclasses()
    result = measure(options)
    name = f"startup-{options.model}-{torch.device(options.device).type}-{options.dtype}"
    save_result(Path(options.output_dir), name, result, format_startup(result))


if __name__ == "__main__":
    main()
