"""SUPERB's overall scores, and a table that puts one's own results beside published ones.

    python -m hf_prunable.superb results.json

where results.json holds `{"my model": {"parameters": 26.4, "KS": 96.1, ...}}`: any number of models, each with figures of
the test sets by the names in `METRICS`, in percent, and, if known, its millions of parameters. The table is Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean


@dataclass(frozen=True)
class Metric:
    """A column of SUPERB (arXiv 2105.01051).

    Attributes:
        task: That it belongs to.
        unit: What is counted, in percent.
        is_error: Whether less is better.
        filterbank: What the leaderboard's baseline, log mel filterbanks, reaches.
        best: The value that the leaderboard's score counts as 1000.
        maximum: The largest possible value, if there is one: insertions can take an error rate past 100.
    """

    task: str
    unit: str
    is_error: bool
    filterbank: float
    best: float
    maximum: float = 100.0


# Baseline and best values as found from the leaderboard's scores: they give 10 of 11 published scores to the integer.
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


# Test sets, as published by the models' authors and the leaderboard; parameters in millions.
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
    "In percent. {lower} lower, the others higher is better. superb_s is the leaderboard's overall score; mean is that of "
    "the {count} figures, errors as 100 - error. Neither is the mean of arXiv 2306.01385.\n"
)


def superb_score(results: Mapping[str, float]) -> float:
    """The leaderboard's overall score: 0 for log mel filterbanks, 1000 for the best known system.

    It is 1000 times the mean over the ten tasks of (m - filterbank) / (best - filterbank); the two metrics of slot
    filling are averaged first. The formula was found from published scores (see `METRICS`).

    Args:
        results: Every figure of `METRICS`, in percent.

    Raises:
        ValueError: If figures are missing, unknown or impossible.
    """
    _check(results, complete=True)
    scores: dict[str, list[float]] = {}
    for name, metric in METRICS.items():
        score = (results[name] - metric.filterbank) / (metric.best - metric.filterbank)
        scores.setdefault(metric.task, []).append(score)
    return 1000 * fmean(fmean(of_task) for of_task in scores.values())


def plain_mean(results: Mapping[str, float]) -> float:
    """The mean of all figures in percent, an error as 100 - error.

    Args:
        results: Every figure of `METRICS`, in percent.

    Raises:
        ValueError: If figures are missing, unknown or impossible.
    """
    _check(results, complete=True)
    return fmean(100 - results[name] if metric.is_error else results[name] for name, metric in METRICS.items())


def _check(results: Mapping[str, float], *, complete: bool) -> None:
    allowed = f"SUPERB's figures are {', '.join(METRICS)}, and `{PARAMETERS}` may come with them."
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
        raise ValueError("No figure is above 1, so these look like fractions. Give percent.")


def format_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table of own results, each with its overall scores, above the published ones.

    Args:
        results: By the model's name; what was not measured may be left out, and the overall scores are then as well.

    Raises:
        ValueError: If there is no result, a name is that of a published model, or a figure is unknown or impossible.
    """
    taken = [name for name in results if name in PUBLISHED]
    if taken or not results:
        raise ValueError(
            f"{', '.join(map(repr, taken))} stands in the table already. Give your own results another name."
            if taken
            else 'There are no results. Give {"name of the model": {"KS": 96.1, ...}}.'
        )
    lines = [
        f"| model | params (M) | {' | '.join(METRICS)} | superb_s | mean |",
        f"| --- |{' ---: |' * (len(METRICS) + 3)}",
    ]
    for name, figures in {**{f"**{name}**": figures for name, figures in results.items()}, **PUBLISHED}.items():
        try:
            _check(figures, complete=False)
        except ValueError as error:
            raise ValueError(f"{name.strip('*')}: {error}") from None
        cells = [_cell(figures.get(PARAMETERS), 1), *(_cell(figures.get(metric), 2) for metric in METRICS)]
        is_complete = all(metric in figures for metric in METRICS)
        cells += [_cell(superb_score(figures), 0), _cell(plain_mean(figures), 1)] if is_complete else ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lower = ", ".join(name for name, metric in METRICS.items() if metric.is_error)
    return "\n".join(lines) + "\n\n" + FOOTNOTE.format(lower=lower, count=len(METRICS))


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Reads the results and writes the table to the standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON: figures by the model's name.")
    path = parser.parse_args().results
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict) or not all(isinstance(figures, dict) for figures in results.values()):
            raise ValueError('the file must hold {"name of the model": {"KS": 96.1, ...}}.')
        table = format_table(results)
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
