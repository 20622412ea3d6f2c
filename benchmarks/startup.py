"""Start-up cost: time of imports, time and peak memory of loading, and memory of a forward pass.

    python -m benchmarks startup --output_dir startup
    python -m benchmarks startup --output_dir startup --model wavlm-large --memory_seconds 10

Each measurement runs in a fresh process. Weights are random. On the CPU, memory is the growth of the process's resident
memory; on a GPU, the memory that torch allocates.
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

from benchmarks.compared_models import ComparedModel, ModelArguments, compared_models
from benchmarks.process_memory import in_fresh_process
from benchmarks.result_files import save_result
from hf_prunable import load_prunable
from hf_prunable.modeling.auto import FAMILIES
from hf_prunable.modeling.size import SAMPLING_RATE
from hf_prunable.reporting.measurement import describe_machine
from hf_prunable.reporting.provenance import library_versions, source_commit
from hf_prunable.runtime import process_memory
from hf_prunable.runtime.evaluation_mode import evaluation_mode
from hf_prunable.runtime.tables import markdown_table


# The first pass loads libraries, so it runs on a short clip and is not measured.
FIRST_SECONDS = 1.0
TIMED_IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
MIB = 2**20


@dataclass
class StartupArguments(ModelArguments):
    """Models to load and run."""

    memory_seconds: float = field(
        default=30.0, metadata={"help": "Clip length in seconds for the memory of a forward pass."}
    )
    threads: int = field(default=1, metadata={"help": "Number of CPU threads."})
    repetitions: int = field(default=5, metadata={"help": "Number of fresh processes for each median."})


def import_statements() -> dict[str, str]:
    """Returns the import statements to time: the classes of transformers that hf_prunable builds on, and hf_prunable."""
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
    """Times the imports in fresh processes, alternating between them.

    Args:
        repetitions: Number of processes for each import.

    Returns:
        By import: "seconds" of each process, and "median_seconds".
    """
    seconds: dict[str, list[float]] = {name: [] for name in import_statements()}
    for _ in logging.tqdm(range(repetitions), desc="Importing", unit="round"):
        for name, statement in import_statements().items():
            command = [sys.executable, "-c", TIMED_IMPORT.format(statement)]
            completed = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[name].append(float(completed.stdout.split()[-1]))
    return {name: {"median_seconds": statistics.median(times), "seconds": times} for name, times in seconds.items()}


def load_saved(folder: str, is_stock: bool) -> dict[str, float]:
    """Loads a model from disk. Call it in a fresh process.

    Args:
        folder: Folder of the saved model.
        is_stock: Whether to load the stock class.

    Returns:
        "seconds", and "peak_bytes", the growth of the process's memory at its peak.
    """
    before = process_memory.reset_peak()
    start = time.perf_counter()
    (AutoModel.from_pretrained if is_stock else load_prunable)(folder)
    return {"seconds": time.perf_counter() - start, "peak_bytes": process_memory.peak() - before}


def measure_loading(models: Sequence[ComparedModel], dtype: str, repetitions: int) -> dict[str, dict[str, Any]]:
    """Saves the models and loads them in fresh processes, alternating between them.

    Args:
        models: Models that are not prepared for inference, because prepared models cannot be saved.
        dtype: Data type of the weights, by torch's name.
        repetitions: Number of processes for each model.

    Returns:
        By model name: "median_seconds", "median_peak_bytes", and "runs" as `load_saved` returns them.
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
    """Measures the memory of one forward pass. Call it in a fresh process.

    Args:
        model: Model to run.
        options: Options of the benchmark.

    Returns:
        "weight_bytes", the size of weights and buffers, and "forward_bytes", the growth of memory at the peak of the
        pass.
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
    """Measures imports, loading and memory.

    Args:
        options: Options of the benchmark.

    Raises:
        ValueError: If a model or shape is unknown.
    """
    shape_files = options.load_shapes()
    all_models = logging.tqdm(compared_models(shape_files), desc="Forward passes", unit="model")
    result = {
        **asdict(options),
        "machine": describe_machine(options.device, options.threads),
        "versions": library_versions(),
        "commit": source_commit(),
        "imports": measure_imports(options.repetitions),
        "loading": measure_loading(compared_models(shape_files, prepared=False), options.dtype, options.repetitions),
        "memory": {model.name: in_fresh_process(forward_memory, model, options) for model in all_models},
    }
    del result["output_dir"], result["shapes_dir"]
    return result


def format_startup(result: dict[str, Any]) -> str:
    """Formats the tables of imports, loading and memory as Markdown.

    Args:
        result: Result of `measure`.
    """
    imports = [(name, f"{row['median_seconds']:.2f}") for name, row in result["imports"].items()]
    loading = [
        (name, f"{row['median_seconds']:.2f}", f"{row['median_peak_bytes'] / MIB:.0f}")
        for name, row in result["loading"].items()
    ]
    memory = [
        (name, f"{row['weight_bytes'] / MIB:.0f}", f"{row['forward_bytes'] / MIB:.0f}")
        for name, row in result["memory"].items()
    ]
    clip = f"{result['memory_seconds']:g} s clip"
    tables = (
        markdown_table(("Import", "Time (s)"), imports),
        markdown_table(("Model", "Loading time (s)", "Peak memory of loading (MiB)"), loading),
        markdown_table(("Model", "Weights (MiB)", f"Forward pass, {clip} (MiB)"), memory),
    )
    return (
        f"# {result['model']}, {result['dtype']}\n\n" + "\n\n".join(tables) + "\n\n"
        f"Times and loading peaks: medians of {result['repetitions']} fresh processes. Imports: the classes of "
        "transformers that hf_prunable builds on, and hf_prunable, which imports them. Loading is timed after both are "
        "imported; its memory is that of the process, mapped pages of the file included. "
        f'"prepared": after `prepare_for_inference_()`.\n\nMeasured on: {result["machine"]}.\n'
    )


def main() -> None:
    (options,) = HfArgumentParser(StartupArguments).parse_args_into_dataclasses()
    result = measure(options)
    name = f"startup-{options.model}-{torch.device(options.device).type}-{options.dtype}"
    save_result(Path(options.output_dir), name, result, format_startup(result))


if __name__ == "__main__":
    main()
