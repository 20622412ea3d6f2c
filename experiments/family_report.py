"""Report of teachers of other families: a table of fidelity and evaluation, and the values as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_files import save_result, without_keys
from experiments.compared_students import TEACHER
from experiments.family_starts import FAMILIES
from hf_prunable.runtime.tables import markdown_table


# Values of the evaluation that the table shows: key of the measurement and of the value.
EVALUATED = (("words", "accuracy"), ("words", "drop_in_accuracy"), ("speakers", "accuracy"), ("units", "agreement"))
# Keys that are left to the files of the results.
RAW_KEYS = ("history", "correct", "drop_in_correct", "group_sizes", "agreeing_frames")


def write_report(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Writes `family_teachers.md` and `family_teachers.json`.

    Args:
        results: Results on disk, with that of the teacher.
        folder: Output folder.
    """
    order = [TEACHER, *FAMILIES]
    results = sorted(results, key=lambda result: order.index(result["row"]))
    values = {"results": without_keys(results, RAW_KEYS)}
    save_result(folder, "family_teachers", values, format_report(results))


def format_report(results: Sequence[dict[str, Any]]) -> str:
    """Formats tables and notes as Markdown.

    Args:
        results: Results in the order of the rows, the teacher first.
    """
    parts = ["# Teachers of other families", _main_table(results), "## Cosine similarity by layer", _cosines(results)]
    if made := [result for result in results if result["row"] != TEACHER]:
        parts += ["## Before training", _start_table(made)]
    return "\n\n".join([*parts, _format_notes(results)]) + "\n"


def _label(result: dict[str, Any]) -> str:
    return "WavLM (teacher)" if result["row"] == TEACHER else FAMILIES[result["row"]].label


def _main_table(results: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            _label(result),
            f"{result['num_parameters']:,}",
            "–" if result["row"] == TEACHER else f"{result['settings']['final_steps']:,}",
            f"{result['loss']:.4f}",
            f"{sum(result['cosine']) / len(result['cosine']):.4f}",
            *(f"{result[name][key]:.3f}" if name in result else "–" for name, key in EVALUATED),
        ]
        for result in results
    ]
    titles = ["Model", "Parameters", "Steps", "Loss", "Mean cosine"]
    return markdown_table([*titles, "Words", "Words, teacher's classifier", "Speakers", "Units"], rows)


def _cosines(results: Sequence[dict[str, Any]]) -> str:
    made = [result for result in results if result["row"] != TEACHER] or results
    layers = range(len(made[0]["cosine"]))
    rows = [[_label(result), *(f"{value:.3f}" for value in result["cosine"])] for result in made]
    return markdown_table(["Model", *map(str, layers)], rows)


def _start_table(made: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            _label(result),
            result["settings"]["start"],
            *(f"{result['start'][name]:,}" for name in ("copied_parameters", "new_parameters")),
            f"{result['start']['loss']:.4f}",
        ]
        for result in made
    ]
    return markdown_table(["Model", "Start", "Copied values", "New values", "Loss"], rows, "llrrr")


def _format_notes(results: Sequence[dict[str, Any]]) -> str:
    settings = results[-1]["settings"]
    notes = [
        f"- Loss and cosine: against the teacher's hidden states, without a projection, on "
        f"{results[0]['held_out_frames']:,} held-out frames of the folder `dataset_name`. Layer 0 is the input of the "
        "first layer, which a post-norm teacher normalizes and a pre-norm model does not.",
        "- `family_teachers.json` names the copied and the new weights.",
    ]
    if "words" in results[0]:
        words, speakers, units = (results[0][name] for name in ("words", "speakers", "units"))
        notes.append(
            f"- Words: {len(words['correct']):,} clips of {words['classes']} words; speakers: "
            f"{len(speakers['correct']):,} clips of {speakers['classes']} speakers; both in cross-validation, as in the "
            f"experiment `evidence`. Units: {units['num_units']} k-means units of the teacher."
        )
    described = ", ".join(f"`{name}` {value}" for name, value in settings.items())
    machines = "; ".join(dict.fromkeys(result["machine"] for result in results))
    return "\n".join(notes) + f"\n\nMachine: {machines}\n\nSettings of the last row: {described}."
