"""Benchmark results in the form that the Hub's leaderboards read, as files in `.eval_results`."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, hf_hub_download
from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError
from transformers.utils import logging

from ..runtime.files import write_text_atomically
from .finetuning_report import FinetuningReport
from .model_card_parts import EVAL_RESULTS_FOLDER
from .public_text import hub_id


logger = logging.get_logger(__name__)

# File that declares a data set to be a benchmark and lists its tasks: https://huggingface.co/docs/hub/eval-results
BENCHMARK_FILE = "eval.yaml"
TEST_SPLIT = "test"


def save_eval_results(report: FinetuningReport, folder: Path) -> Path | None:
    """Writes the test accuracy of a word classifier to the folder of benchmark results.

    Nothing is written for speaker classifiers, for a subset of the words, for data that is not on the Hub, and for data
    sets that are no benchmark.

    Args:
        report: Complete record of the run.
        folder: Folder of the model.

    Returns:
        Path of the file, or `None` if nothing was written.
    """
    inputs = report.inputs
    dataset_id = None if inputs.dataset_name is None else hub_id(inputs.dataset_name)
    if inputs.task != "word" or inputs.has_own_labels or inputs.words or dataset_id is None:
        return None
    task_id = benchmark_task(dataset_id, inputs.dataset_config_name)
    if task_id is None:
        return None
    accuracy = round(report.results.saved_variant.results[0].metrics["accuracy"], 6)
    entries = eval_result_entries_to_yaml([EvalResultEntry(dataset_id=dataset_id, task_id=task_id, value=accuracy)])
    path = folder / EVAL_RESULTS_FOLDER / f"{dataset_id.replace('/', '_')}.yaml"
    path.parent.mkdir()
    write_text_atomically(path, yaml.safe_dump(entries, sort_keys=False))
    return path


def benchmark_task(dataset_id: str, config_name: str | None = None) -> str | None:
    """Finds the benchmark task that is evaluated on the test split of a data set.

    Args:
        dataset_id: Id of the data set on the Hub.
        config_name: Configuration of the data set; `None` stands for "default".

    Returns:
        Id of the task; `None` if the data set is no benchmark, does not have exactly one such task, or cannot be read.
    """
    try:
        benchmark = yaml.safe_load(Path(hf_hub_download(dataset_id, BENCHMARK_FILE, repo_type="dataset")).read_text())
        tasks = [
            task["id"]
            for task in benchmark["tasks"]
            if (task.get("config", "default"), task.get("split")) == (config_name or "default", TEST_SPLIT)
        ]
    except RemoteEntryNotFoundError:
        return None
    except (HTTPError, OSError, yaml.YAMLError, KeyError, TypeError) as error:
        # A missing benchmark result must not discard a finished model.
        logger.warning(f"The benchmark of {dataset_id} cannot be read, so that no result is written for it: {error!r}")
        return None
    return tasks[0] if len(tasks) == 1 else None
