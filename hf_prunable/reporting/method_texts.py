"""Sentences of a model card on the pruning method of the run."""

from __future__ import annotations

from ..pruning.arguments import BY_ONE_SHOT, GATES, MAGNITUDE, ONE_SHOT, ROTATED
from ..runtime.project import project_url
from .pruning_inputs import PruningInputs
from .pruning_report import PruningReport


LEARNED_BY = {
    "distillation": "by distillation, without labels",
    "task": "from labels",
    "both": "from labels and by distillation",
}
GATE_STARTS_IN_WORDS = {
    ROTATED: " of rotated heads",
    BY_ONE_SHOT: " of rotated heads, in the order of one-shot pruning",
}
# Name of a method and the page of the documentation that describes it.
METHOD_PAGES = {
    GATES: ("learned gates", "concepts/gates_and_constraint.md"),
    ONE_SHOT: ("one-shot pruning", "concepts/one_shot.md"),
    MAGNITUDE: ("magnitude pruning", "guides/choose_a_method.md"),
}
NO_TASK_MEASURED = "This run measured no accuracy on a task: evaluate the model on your task before use."

STOCK_SHAPE_LIMIT = (
    "All layers have one feed-forward width, so that a stock class can express the shape. A shape of the same size whose widths "
    "vary was not measured for this model. For another model, hf_prunable's `docs/concepts/one_shot.md` has figures of both: "
    "there, widths that vary kept more."
)


def describe_method(inputs: PruningInputs) -> str:
    """Returns what removed the parameters, as the end of a sentence.

    Args:
        inputs: Inputs of the run.
    """
    if inputs.method == MAGNITUDE:
        refitted = ". The rest was refitted by least squares" if inputs.refit else ""
        return (
            "magnitude pruning with hf_prunable: all layers have the same widths, and keep the units with the largest weights"
            f"{refitted}"
        )
    if inputs.method == ONE_SHOT and inputs.calibration is not None:
        audio = inputs.calibration
        return (
            f"one-shot pruning with hf_prunable: statistics of {audio.num_crops:,} clips of {audio.seconds:g} s chose the "
            "units and refitted the weights of the others"
        )
    return "structured pruning with hf_prunable"


def method_with_link(inputs: PruningInputs) -> str:
    """Returns the method as Markdown, with a link to its description and the steps of training.

    Args:
        inputs: Inputs of the run.
    """
    name, page = METHOD_PAGES[inputs.method]
    refitted = ", refitted" if inputs.refit and inputs.method != ONE_SHOT else ""
    steps = ", ".join(f"{count:,} steps {stage}" for stage, count in inputs.steps.items()) or "no training"
    return f"[{name}]({project_url('Documentation')}/{page}){refitted}, {steps}"


def describe_training(inputs: PruningInputs) -> str:
    """Returns a sentence on what was learned.

    Args:
        inputs: Inputs of the run.
    """
    learned_by = LEARNED_BY[inputs.objective]
    if inputs.method == GATES:
        return f"The pruning decisions were learned {learned_by}."
    if inputs.steps:
        return f"The pruned model was then trained {learned_by}."
    return "The pruned model was not trained."


def settings_of_method(report: PruningReport) -> list[str]:
    """Returns lines on units, audio, target by fidelity, rounds, steps and seed.

    Args:
        report: Complete record of the run.
    """
    inputs, rounds = report.inputs, report.results.rounds
    units = ", ".join(inputs.units)
    steps = ", ".join(f"{count:,} steps {stage}" for stage, count in inputs.steps.items())
    first = {
        GATES: f"Gates on {units}{GATE_STARTS_IN_WORDS.get(inputs.gate_start or '', '')}",
        ONE_SHOT: f"One-shot pruning of {units}",
        MAGNITUDE: f"Uniform widths of {units}",
    }
    refitted = "refitted" if inputs.refit and inputs.method != ONE_SHOT else ""
    lines = ["; ".join(filter(None, (first[inputs.method], refitted, steps, f"seed {inputs.seed}"))) + "."]
    if inputs.calibration is not None:
        audio = inputs.calibration
        skipped = f"; {audio.num_too_short:,} clips are too short for one" if audio.num_too_short else ""
        lines.append(
            f"Calibration audio: {audio.num_crops:,} crops of {audio.seconds:g} s from {audio.num_clips:,} training "
            f"clips{skipped}."
        )
    found = report.results.found_size
    if found is not None:
        lines.append(f"{found.describe()} Models pruned and measured: {found.num_candidates}.")
    if rounds:
        after = ", ".join(f"{100 * pruning_round.sparsity:.1f} %" for pruning_round in rounds)
        lines.append(f"Sparsity after each round: {after}.")
    return lines


def limit_of_method(inputs: PruningInputs) -> str:
    """Returns a sentence on what the figures of the run do not say.

    Args:
        inputs: Inputs of the run.
    """
    if inputs.steps and inputs.objective != "distillation":
        return "The held-out loss is from clips of the same data set as the training clips."
    if inputs.steps:
        return f"The model was trained to reproduce the hidden states of its teacher. {NO_TASK_MEASURED}"
    if inputs.method == ONE_SHOT:
        return (
            f"The weights were fitted to the hidden states of the {inputs.reference} on the calibration audio, and held-out "
            f"clips are from the same data set. {NO_TASK_MEASURED}"
        )
    return f"Nothing was trained after pruning, which costs most of the quality. {NO_TASK_MEASURED}"


def promise_of_hidden_states(report: PruningReport) -> str:
    """Returns a sentence on whether the model's hidden states can stand for the teacher's; empty if nothing was measured.

    Args:
        report: Complete record of the run.
    """
    inputs = report.inputs
    if report.results.fidelity is None:
        return ""
    if inputs.has_projections:
        return (
            f"Training compared hidden states behind linear maps that are not part of the model. A head or k-means units of "
            f"the {inputs.reference} do not fit the model's own hidden states: train them anew."
        )
    if inputs.objective == "task":
        return ""
    return (
        f"Its hidden states stand in the place of the {inputs.reference}'s, index by index, as near as the table says. How well "
        "heads, probes and k-means units that were made for it work on them depends on that: test them before use."
    )


def has_curve(report: PruningReport) -> bool:
    """Returns whether the log of a run has a sparsity at any step; a short run may end before its first entry.

    Args:
        report: Record of the run.
    """
    return any("expected_sparsity" in entry for entry in report.results.history)


def has_prices(report: PruningReport) -> bool:
    """Returns whether the run has measured prices of units.

    Args:
        report: Record of the run.
    """
    rounds = report.results.rounds
    return bool(rounds) and all(pruning_round.prices for pruning_round in rounds)
