"""SUPERB's overall scores, and a Markdown table of own and published results.

    hf-prunable superb results.json

The file results.json holds `{"my model": {"parameters": 26.4, "KS": 96.1, ...}}`: for each model the metrics of `METRICS`
on the test sets, in percent, and, if known, the number of parameters in millions.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from .runtime.command_parser import CommandParser
from .runtime.tables import markdown_table
from .runtime.user_errors import user_errors


PROGRAM = "hf-prunable superb"


@dataclass(frozen=True)
class Metric:
    """A metric of SUPERB (arXiv 2105.01051).

    Attributes:
        task: Abbreviation of the task, such as "KS" for keyword spotting.
        unit: Name of the metric, which is in percent.
        is_error: Whether lower is better.
        filterbank: Value of the leaderboard's baseline, log mel filterbanks.
        best: Value that the leaderboard's score counts as 1000.
        maximum: Largest possible value; infinity for error rates that insertions can raise above 100.
    """

    task: str
    unit: str
    is_error: bool
    filterbank: float
    best: float
    maximum: float = 100.0


# Baseline and best values were derived from the leaderboard's scores: 10 of 11 published scores follow to the integer.
METRICS = {
    "KS": Metric("KS", "accuracy", False, 41.38, 96.66),
    "IC": Metric("IC", "accuracy", False, 9.65, 98.76),
    "PR": Metric("PR", "phone error rate", True, 82.01, 3.53, math.inf),
    "ASR": Metric("ASR", "word error rate", True, 23.18, 3.62, math.inf),
    "ER": Metric("ER", "accuracy", False, 48.24, 67.62),
    "QbE": Metric("QbE", "maximum term weighted value, times 100", False, 0.58, 7.36),
    "SF-F1": Metric("SF", "slot F1", False, 69.64, 89.81),
    "SF-CER": Metric("SF", "slot value character error rate", True, 52.94, 21.76, math.inf),
    "SID": Metric("SID", "accuracy", False, 20.06, 90.33),
    "SV": Metric("SV", "equal error rate", True, 9.56, 5.11),
    "SD": Metric("SD", "diarization error rate", True, 10.05, 5.62, math.inf),
}
PARAMETERS = "parameters"


def _published(parameters: float, *values: float) -> dict[str, float]:
    return {PARAMETERS: parameters, **dict(zip(METRICS, values, strict=True))}


# Results on the test sets as published by the models' authors and the leaderboard; parameters in millions.
PUBLISHED = {
    "wav2vec 2.0 base": _published(95.0, 96.23, 92.35, 5.74, 6.43, 63.43, 2.33, 88.30, 24.77, 75.18, 6.02, 6.08),
    "HuBERT base": _published(94.7, 96.30, 98.34, 5.41, 6.42, 64.92, 7.36, 88.53, 25.20, 81.42, 5.11, 5.88),
    "WavLM base": _published(94.7, 96.79, 98.63, 4.84, 6.21, 65.94, 8.70, 89.38, 22.86, 84.51, 4.69, 4.55),
    "WavLM base+": _published(94.7, 97.37, 99.00, 3.92, 5.59, 68.65, 9.88, 90.58, 21.20, 89.42, 4.07, 3.50),
    "DistilHuBERT": _published(23.5, 95.98, 94.99, 16.27, 13.37, 63.02, 5.11, 82.57, 35.59, 73.54, 8.55, 6.19),
    "LightHuBERT small": _published(27.0, 96.07, 98.23, 6.60, 8.34, 64.12, 7.64, 87.58, 26.90, 69.70, 5.42, 5.85),
    "DPHuBERT": _published(23.6, 96.36, 97.92, 9.67, 10.47, 63.16, 6.93, 86.86, 28.26, 76.83, 5.84, 5.92),
    "DPWavLM": _published(23.6, 96.27, 98.58, 8.22, 10.19, 65.24, 8.74, 87.68, 26.11, 82.11, 5.98, 5.53),
    "STaRHuBERT-L": _published(26.6, 96.56, 97.50, 7.97, 8.91, 63.48, 6.77, 88.01, 25.36, 78.66, 5.45, 5.83),
}
FOOTNOTE = (
    "In percent. {lower}: lower is better; others: higher is better. superb_s is the leaderboard's overall score; mean is "
    "the mean of the {count} metrics, with errors as 100 - error. Neither is the mean of arXiv 2306.01385.\n"
)


def superb_score(results: Mapping[str, float]) -> float:
    """Computes the leaderboard's overall score: 0 for log mel filterbanks, 1000 for the best known systems.

    The score is 1000 times the mean over the ten tasks of (metric - filterbank) / (best - filterbank), where the two
    metrics of slot filling are averaged first. The formula was derived from published scores, see `METRICS`.

    Args:
        results: All metrics of `METRICS`, in percent, by name.

    Returns:
        Score without a unit.

    Raises:
        ValueError: If metrics are missing, unknown or impossible.
    """
    _check(results, complete=True)
    scores: dict[str, list[float]] = {}
    for name, metric in METRICS.items():
        score = (results[name] - metric.filterbank) / (metric.best - metric.filterbank)
        scores.setdefault(metric.task, []).append(score)
    return 1000 * fmean(fmean(of_task) for of_task in scores.values())


def plain_mean(results: Mapping[str, float]) -> float:
    """Computes the mean of all metrics, with an error as 100 - error.

    Args:
        results: All metrics of `METRICS`, in percent, by name.

    Returns:
        Mean in percent.

    Raises:
        ValueError: If metrics are missing, unknown or impossible.
    """
    _check(results, complete=True)
    return fmean(100 - results[name] if metric.is_error else results[name] for name, metric in METRICS.items())


def _check(results: Mapping[str, float], *, complete: bool) -> None:
    allowed = f"SUPERB's metrics are {', '.join(METRICS)}; `{PARAMETERS}` may be given with them."
    unknown = [name for name in results if name not in METRICS and name != PARAMETERS]
    if unknown:
        raise ValueError(f"Unknown: {', '.join(map(repr, unknown))}. {allowed}")
    missing = [name for name in METRICS if name not in results]
    if missing and (complete or len(missing) == len(METRICS)):
        raise ValueError(f"Missing: {', '.join(missing)}. {allowed}")
    for name, value in results.items():
        maximum = METRICS[name].maximum if name in METRICS else math.inf
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not 0 <= value <= maximum:
            unit = f"{METRICS[name].unit}, in percent" if name in METRICS else "in millions"
            limits = "0 or more" if maximum == math.inf else f"0 to {maximum:g}"
            raise ValueError(f"{name} ({unit}) must be a number, {limits}, but is {value!r}.")
    if all(value <= 1 for name, value in results.items() if name in METRICS):
        raise ValueError("No metric is above 1, so these look like fractions. Give percent.")


def format_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Formats a Markdown table of own results, each with its overall scores, above the published ones.

    Args:
        results: Metrics of each model by the model's name. Metrics may be missing; the overall scores then are as well.

    Returns:
        Table and footnote.

    Raises:
        ValueError: If there are no results, a name is that of a published model, or a metric is unknown or impossible.
    """
    if not results:
        raise ValueError('There are no results. Give {"name of the model": {"KS": 96.1, ...}}.')
    taken = [name for name in results if name in PUBLISHED]
    if taken:
        raise ValueError(f"The table has {', '.join(map(repr, taken))} already. Give your results another name.")
    rows = []
    for name, metrics in results.items():
        try:
            _check(metrics, complete=False)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        rows.append([f"**{name}**", *_cells(metrics)])
    rows += [[name, *_cells(metrics)] for name, metrics in PUBLISHED.items()]
    table = markdown_table(["model", "params (M)", *METRICS, "superb_s", "mean"], rows)
    lower = ", ".join(name for name, metric in METRICS.items() if metric.is_error)
    return f"{table}\n\n{FOOTNOTE.format(lower=lower, count=len(METRICS))}"


def _cells(results: Mapping[str, float]) -> list[str]:
    cells = [_cell(results.get(PARAMETERS), 1), *(_cell(results.get(name), 2) for name in METRICS)]
    if all(name in results for name in METRICS):
        return [*cells, _cell(superb_score(results), 0), _cell(plain_mean(results), 1)]
    return [*cells, "", ""]


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads results from a file and writes the table to the standard output.

    Args:
        arguments: Arguments of the command; `None` for those of this process.
    """
    parser = CommandParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("results", type=Path, help="JSON file of metrics by the model's name")
    path = parser.read(arguments).results
    with user_errors(PROGRAM):
        sys.stdout.write(format_table(_read(path)))


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}.") from error
    if not isinstance(results, dict) or not all(isinstance(metrics, dict) for metrics in results.values()):
        raise ValueError(f'{path} must hold {{"name of the model": {{"KS": 96.1, ...}}}}.')
    return results


if __name__ == "__main__":
    main()
