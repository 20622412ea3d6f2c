"""Curves of gates during training, from the results of `experiments.evidence`.

    python -m experiments gate_curves --picture evidence/ste.png \
        --results evidence/raw/gates_paper_0.72_seed42.json evidence/raw/gates_without_ste_0.72_seed42.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers import HfArgumentParser

from experiments.compared_students import row_label
from hf_prunable.reporting.pictures import DOTS_PER_INCH, GRID_COLOR


CURVES = {
    "distillation_loss": "Distillation loss",
    "expected_sparsity": "Expected sparsity",
    "block_gates": "Mean value of block gates",
    "fractional_gates": "Fraction of gates between 0 and 1",
}


@dataclass
class CurveArguments:
    """Results to draw, and the output file."""

    results: list[str] = field(metadata={"help": "Result files in the folder `raw` of the experiment evidence."})
    picture: str = field(metadata={"help": "Output file; its extension selects the image format."})


def draw_gate_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike) -> None:
    """Draws one panel per quantity and one line per run, for the stage with gates.

    Args:
        histories: Log entries of each run, by the run's name.
        path: Output file; its extension selects the image format.
    """
    figure = Figure(figsize=(11, 7), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, label) in zip(figure.subplots(2, 2, sharex=True).flat, CURVES.items(), strict=True):
        for run, history in histories.items():
            entries = [entry for entry in history if entry["stage"] == 1 and name in entry]
            axes.plot([entry["step"] for entry in entries], [entry[name] for entry in entries], label=run)
        if name == "expected_sparsity" and entries:
            target = [entry["target_sparsity"] for entry in entries]
            axes.plot([entry["step"] for entry in entries], target, color="0.4", linestyle="--", label="target")
        axes.set_xlabel("Optimizer step")
        axes.set_ylabel(label)
        axes.grid(color=GRID_COLOR)
        axes.legend()
    figure.savefig(path)


def main() -> None:
    (options,) = HfArgumentParser(CurveArguments).parse_args_into_dataclasses()
    loaded = [json.loads(Path(name).read_text(encoding="utf-8")) for name in options.results]
    draw_gate_curves({row_label(result["row"]): result["history"] for result in loaded}, options.picture)


if __name__ == "__main__":
    main()
