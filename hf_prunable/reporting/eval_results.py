"""Results for the leaderboard of a benchmark on the Hub, as files in `.eval_results`."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, hf_hub_download
from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError
from transformers.utils import logging

from ..runtime.files import write_text_atomically
from .finetuning_report import FinetuningReport
from .model_card_parts import EVAL_RESULTS_FOLDER, hub_id


logger = logging.get_logger(__name__)

# A data set that is a benchmark says so, and names its tasks, in this file:
# https://huggingface.co/docs/hub/eval-results
BENCHMARK_FILE = "eval.yaml"
TEST_SPLIT = "test"


def save_eval_results(report: FinetuningReport, folder: Path) -> Path | None:
    """Writes the test accuracy of a word classifier where the Hub looks for results on benchmarks.

    There is nothing to write for speakers or for some words alone, which no benchmark asks for, and where the data set is
    not on the Hub or is no benchmark.

    Args:
        report: Of the run.
        folder: Of the model.

    Returns:
        The file, if there is one.
    """
    dataset_id = None if report.dataset_name is None else hub_id(report.dataset_name)
    if report.task != "word" or report.words or dataset_id is None:
        return None
    task_id = benchmark_task(dataset_id, report.dataset_config_name)
    if task_id is None:
        return None
    *_, variant = report.variants.values()
    accuracy = round(variant.results[0].metrics["accuracy"], 6)
    entries = eval_result_entries_to_yaml([EvalResultEntry(dataset_id=dataset_id, task_id=task_id, value=accuracy)])
    path = folder / EVAL_RESULTS_FOLDER / f"{dataset_id.replace('/', '_')}.yaml"
    path.parent.mkdir()
    write_text_atomically(path, yaml.safe_dump(entries, sort_keys=False))
    return path


def benchmark_task(dataset_id: str, config_name: str | None = None) -> str | None:
    """The task of a benchmark that its test split is for.

    Args:
        dataset_id: On the Hub.
        config_name: Of the data set; "default" where `None`.

    Returns:
        Its id; `None` where the data set is no benchmark, has no such task, or cannot be asked.
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
        # The model is made, and is not to be lost because of this.
        logger.warning(f"The benchmark of {dataset_id} cannot be read, and so no result is written for it: {error!r}")
        return None
    return tasks[0] if len(tasks) == 1 else None
