"""Draws how gates get decided, run beside run: from the results of `experiments.evidence`.

    python -m experiments.gate_curves --picture evidence/ste.png \
        --results evidence/learned_0.72_seed42.json evidence/learned_without_ste_0.72_seed42.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from transformers import HfArgumentParser


CURVES = {
    "distillation_loss": "distillation loss",
    "expected_sparsity": "expected sparsity",
    "block_gates": "mean block gate",
    "fractional_gates": "share of gates between 0 and 1",
}


@dataclass
class CurveArguments:
    """Which results to draw."""

    results: list[str] = field(metadata={"help": "JSON files that the evidence benchmark wrote."})
    picture: str = field(metadata={"help": "The PNG to write."})


def draw_gate_curves(results: dict[str, list[dict]], path: str | Path) -> None:
    """Draws one panel a quantity and one line a run.

    Args:
        results: Histories by the name of the run; only entries of the stage with gates are drawn.
        path: The PNG to write.
    """
    figure = Figure(figsize=(11, 7), dpi=150, layout="constrained")
    for axes, (name, label) in zip(figure.subplots(2, 2, sharex=True).flat, CURVES.items(), strict=True):
        for run, history in results.items():
            entries = [entry for entry in history if entry["stage"] == 1 and name in entry]
            axes.plot([entry["step"] for entry in entries], [entry[name] for entry in entries], label=run)
        if name == "expected_sparsity" and entries:
            target = [entry["target_sparsity"] for entry in entries]
            axes.plot([entry["step"] for entry in entries], target, color="0.4", linestyle="--", label="target")
        axes.set_title(label)
        axes.grid(alpha=0.3)
        axes.legend()
        axes.set_xlabel("optimizer step")
    figure.savefig(path)


def main() -> None:
    (options,) = HfArgumentParser(CurveArguments).parse_args_into_dataclasses()
    loaded = [json.loads(Path(name).read_text()) for name in options.results]
    draw_gate_curves({result["row"].replace("_", " "): result["history"] for result in loaded}, options.picture)


if __name__ == "__main__":
    main()
