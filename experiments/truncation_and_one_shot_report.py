"""Report of truncation and one-shot pruning: tables of sizes, accuracies and paired differences, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.result_files import save_result
from experiments.evidence_report import format_probe_notes, format_settings
from experiments.evidence_results import load_results
from experiments.paired_differences import NUM_RESAMPLES, Difference, GroupedOutcome, paired_difference
from experiments.truncated_students import Pair, TruncatedStudent
from hf_prunable.runtime.tables import markdown_table


NAME = "truncation_and_one_shot"
TASKS = {"words": "Words", "speakers": "Speakers"}
# Students of one size differ in their number of parameters by less than this fraction.
SIZE_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Measured:
    """A student with its result.

    Attributes:
        student: Layers and size of the student.
        result: Result of the experiment.
    """

    student: TruncatedStudent
    result: dict[str, Any]

    def differences(self, reference: Measured) -> dict[str, Difference]:
        """Computes the differences of the accuracies by task.

        Args:
            reference: Student whose accuracy is subtracted.
        """
        return {task: paired_difference(self._outcome(task), reference._outcome(task)) for task in TASKS}

    def _outcome(self, task: str) -> GroupedOutcome:
        return GroupedOutcome.of_clips(self.result[task]["correct"], self.result[task]["group_sizes"])


def write_report(folder: Path, choices_path: Path) -> None:
    """Writes `truncation_and_one_shot.md` and `truncation_and_one_shot.json`.

    Args:
        folder: Output folder of the experiment.
        choices_path: File with the depths that were chosen.

    Raises:
        ValueError: If there are no results, or the teacher's is missing.
    """
    measured = load_measured(folder)
    if TruncatedStudent() not in measured:
        raise ValueError(f"The result of the teacher is missing in {str(folder)!r}. Run the experiment again.")
    choices = json.loads(choices_path.read_text(encoding="utf-8"))["choices"]
    pairs = {pair: measured[pair.student].differences(measured[pair.reference]) for pair in find_pairs(measured)}
    values = {
        "choices": choices,
        "students": [_entry(student) for student in measured.values()],
        "pairs": [
            {
                "student": pair.student.name,
                "reference": pair.reference.name,
                "differences": {task: difference.rounded() for task, difference in found.items()},
            }
            for pair, found in pairs.items()
        ],
    }
    save_result(folder, NAME, values, format_report(measured, pairs, choices))


def load_measured(folder: Path) -> dict[TruncatedStudent, Measured]:
    """Loads all results, larger students first.

    Args:
        folder: Output folder of the experiment.
    """
    results = sorted(load_results(folder), key=lambda result: -result["num_parameters"])
    students = [TruncatedStudent(result["num_layers"], result["target_sparsity"]) for result in results]
    return {student: Measured(student, result) for student, result in zip(students, results, strict=True)}


def find_pairs(measured: dict[TruncatedStudent, Measured]) -> list[Pair]:
    """Finds the pairs of students of one size among the results, larger ones first.

    The whole teacher after one-shot pruning is the reference of students that were truncated and pruned, and is compared
    with students that were truncated alone.

    Args:
        measured: Result of `load_measured`.
    """
    pairs = []
    for student, found in measured.items():
        if student.num_layers is None:
            continue
        for other, candidate in measured.items():
            sizes = [side.result["num_parameters"] for side in (found, candidate)]
            is_same_size = max(sizes) <= (1 + SIZE_TOLERANCE) * min(sizes)
            if other.num_layers is None and other.target_sparsity is not None and is_same_size:
                pairs.append(Pair(other, student) if student.target_sparsity is None else Pair(student, other))
    return pairs


def _entry(measured: Measured) -> dict[str, Any]:
    """Returns the values of a student for JSON, without outcomes of single clips."""
    names = ("layers", "num_parameters", "macs")
    return (
        {"name": measured.student.name}
        | asdict(measured.student)
        | {name: measured.result[name] for name in names}
        | {task: round(measured.result[task]["accuracy"], 5) for task in TASKS}
    )


def format_report(
    measured: dict[TruncatedStudent, Measured],
    pairs: dict[Pair, dict[str, Difference]],
    choices: dict[str, Any],
) -> str:
    """Formats tables and notes as Markdown.

    Args:
        measured: Result of `load_measured`.
        pairs: Differences of each pair by task.
        choices: Choice of the depth by task, see `choose_depth`.
    """
    results = [found.result for found in measured.values()]
    parts = ["# Truncation and one-shot pruning", _format_students(measured)]
    if pairs:
        parts += ["## Differences at the same size, in points", _format_pairs(pairs)]
    return "\n\n".join([*parts, "## Notes", _format_notes(results[0], choices), format_settings(results)]) + "\n"


def _format_students(measured: dict[TruncatedStudent, Measured]) -> str:
    teacher = measured[TruncatedStudent()]
    titles = ["Student", "Layers", "Parameters", "MACs, 10 s"]
    titles += [*TASKS.values(), *(f"{title} − teacher's, in points" for title in TASKS.values())]
    rows = []
    for student, found in measured.items():
        result = found.result
        row = [student.label, str(result["layers"])]
        for text, name in (
            (f"{result['num_parameters']:,}", "num_parameters"),
            (f"{result['macs'] / 1e9:.2f} G", "macs"),
        ):
            row.append(f"{text} ({100 * result[name] / teacher.result[name]:.0f} %)")
        row += [f"{result[task]['accuracy']:.3f}" for task in TASKS]
        differences = found.differences(teacher)
        row += ["–" if found is teacher else differences[task].in_points() for task in TASKS]
        rows.append(row)
    return markdown_table(titles, rows)


def _format_pairs(pairs: dict[Pair, dict[str, Difference]]) -> str:
    rows = [
        [pair.student.label, pair.reference.label, *(found[task].in_points() for task in TASKS)]
        for pair, found in pairs.items()
    ]
    return markdown_table(["Student", "minus", *TASKS.values()], rows, "llrr")


def _format_notes(result: dict[str, Any], choices: dict[str, Any]) -> str:
    chosen = "; ".join(
        f"{task}: {choice['num_layers']} (by fold: {', '.join(map(str, choice['by_fold']))}; in "
        f"{choice['ties_with_layer_0']} of {len(choice['by_fold'])} folds, the input of the first layer is as good)"
        for task, choice in choices.items()
    )
    return (
        "No student is trained. Percentages are of the teacher's size. A student of fewer layers is pruned to keep the hidden "
        "states that truncation left.\n\n"
        f"- Layers kept by convexity: {chosen}. In each fold the choice is made on the clips that the fold's classifier is "
        "trained on; the choice of most folds is taken. Other numbers of layers were given.\n"
        f"{format_probe_notes(result)}\n"
        f"- Differences are paired by clip, with their 95 % interval: {NUM_RESAMPLES:,} bootstrap samples of the speakers. "
        "Those whose interval excludes 0 are bold. Each interval stands for itself."
    )
