"""The methods of `hf-prunable prune`: which options belong to each, and the object that prunes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from typing import Any

from ..one_shot.arguments import OneShotArguments
from ..one_shot.calibration_source import CalibrationSource
from ..one_shot.fidelity_method import FidelityMethod
from ..one_shot.fidelity_search import FoundSize
from ..one_shot.gate_method import GatesFromStatistics
from ..one_shot.method import OneShotMethod
from ..one_shot.one_shot_pruning import ONE_SHOT_UNITS
from ..one_shot.refitted_method import RefittedMethod
from ..pruning.arguments import (
    AUTO_METHOD,
    BY_WEIGHTS,
    GATES,
    MAGNITUDE,
    ONE_SHOT,
    PruningArguments,
    PruningTrainingArguments,
    default_gate_rates,
)
from ..pruning.gate_pruning import GatePruning
from ..pruning.magnitude import MagnitudePruning
from ..pruning.method import PruningMethod
from ..pruning.objective_arguments import ObjectiveArguments
from ..pruning.targets import fidelity_target
from ..reporting.pruning_inputs import Calibration


FINAL_STAGE_ADVICE = {
    "max_steps": "`final_steps` trains the pruned model",
    "learning_rate": "`final_learning_rate` is that of the pruned model",
    "warmup_steps": "`final_warmup_steps` are those of the pruned model",
}
# Options that belong to one method alone, by its name.
OPTIONS_OF = {
    GATES: (
        "round_to",
        "ste",
        "gate_start",
        "initial_drop_rate",
        "initial_norm_spread",
        "gate_learning_rate",
        "multiplier_learning_rate",
        "sparsity_warmup_steps",
        *FINAL_STAGE_ADVICE,
    ),
    ONE_SHOT: ("target_loss", "target_similarity", "rounds", "compare_ragged"),
}
# Options of statistics, for one-shot pruning and for other methods that use them.
STATISTICS = tuple(option.name for option in fields(OneShotArguments) if option.name not in OPTIONS_OF[ONE_SHOT])


def make_method(options: PruningArguments, one_shot: OneShotArguments, seed: int) -> PruningMethod:
    """Returns the pruning method of a run.

    Args:
        options: Options for model, method and targets.
        one_shot: Options of one-shot pruning.
        seed: Random seed of the run.

    Raises:
        ValueError: If options are out of range.
    """
    if options.method == ONE_SHOT:
        others = {name: getattr(options, name) for name in ("target_sparsity", "target_macs")}
        target = fidelity_target(one_shot.target_loss, one_shot.target_similarity, **others, rounds=one_shot.rounds)
        if target is not None:
            return FidelityMethod(options, one_shot, seed, target)
        return OneShotMethod(options, one_shot, seed)
    source = CalibrationSource(one_shot, seed)
    if options.method == MAGNITUDE:
        method: PruningMethod = MagnitudePruning(options)
    else:
        from_weights = options.gate_start == BY_WEIGHTS
        method = GatePruning(options) if from_weights else GatesFromStatistics(options, source)
    return RefittedMethod(method, source) if options.refit else method


def with_method(
    options: PruningArguments, objective: ObjectiveArguments, training: PruningTrainingArguments
) -> PruningArguments:
    """Returns the options with the method that they ask for, if none was given.

    It is one-shot pruning; or gates if there is a task to learn, or one of their options or a kind of unit that only gates
    can prune is given.

    Args:
        options: Options for model, method and targets.
        objective: Options for the losses.
        training: Training arguments.
    """
    if options.method != AUTO_METHOD:
        return options
    given = given_options(options).keys() | given_options(training).keys()
    other_units = set(options.prune_units) - set(ONE_SHOT_UNITS)
    needs_gates = objective.has_task or other_units or not given.isdisjoint(OPTIONS_OF[GATES])
    return replace(options, method=GATES if needs_gates else ONE_SHOT)


def options_without_effect(options: PruningArguments) -> dict[str, tuple[str, ...]]:
    """Returns the names of options that a method does not use, by what they need.

    Args:
        options: Options for the method.
    """
    found = {repr(method): names for method, names in OPTIONS_OF.items() if method != options.method}
    if options.method == ONE_SHOT:
        found["'gates' or 'magnitude', because one-shot pruning refits anyway"] = ("refit",)
    elif not options.refit and (options.method == MAGNITUDE or options.gate_start == BY_WEIGHTS):
        others = " or a `gate_start` other than 'weights'" if options.method == GATES else ""
        found[f"'one_shot', `refit`{others}"] = STATISTICS
    return found


def check_options(options: PruningArguments, one_shot: OneShotArguments, training: PruningTrainingArguments) -> None:
    """Checks that no option of another method was given.

    Args:
        options: Options for model, method and targets.
        one_shot: Options of one-shot pruning.
        training: Training arguments.

    Raises:
        ValueError: If one was given, where a value that is the default counts as not given; or if there is nothing that
            `compare_ragged` could compare, or no training to evaluate or to report.
    """
    given = {name for arguments in (options, one_shot, training) for name in given_options(arguments)}
    for needed, names in options_without_effect(options).items():
        if wrong := [name for name in names if name in given]:
            listed = ", ".join(f"`{name}`" for name in wrong)
            advice = [FINAL_STAGE_ADVICE[name] for name in wrong if name in FINAL_STAGE_ADVICE]
            hint = f" There is no training before pruning: {'; '.join(advice)}." if advice else ""
            raise ValueError(
                f"{listed} {'has' if len(wrong) == 1 else 'have'} no effect with the method {options.method!r}, only with "
                f"{needed}.{hint}"
            )
    if one_shot.compare_ragged and not options.stock_shape:
        raise ValueError(
            "`compare_ragged` compares a stock shape with one whose widths vary. Give `stock_shape` as well, or leave it out."
        )
    if one_shot.compare_ragged and training.final_steps:
        raise ValueError(
            f"`compare_ragged` compares models as they are pruned, but `final_steps` is {training.final_steps}, and only the "
            "model of the stock shape would be trained. Leave one of the two options out."
        )
    if options.method != GATES and not training.final_steps:
        _check_without_training(options.method, training)


def _check_without_training(method: str, training: PruningTrainingArguments) -> None:
    """Checks that nothing was asked for that only training has."""
    if training.evaluates:
        raise ValueError(
            f"`eval_steps` and `eval_strategy` evaluate while a model is trained, but the method {method!r} trains "
            "none without `final_steps`. Give `final_steps`, or leave them out: the finished model is measured in any case."
        )
    if training.report_to:
        raise ValueError(
            f"`report_to` keeps curves of a training, but the method {method!r} trains nothing without `final_steps`. Give "
            "`final_steps`, or leave it out: the measurements are in the report."
        )


def given_options(arguments: Any) -> dict[str, Any]:
    """Returns the values by name that are not the defaults of a dataclass's fields.

    Args:
        arguments: Dataclass of options; a field without a default counts as given.
    """
    defaults = {
        option.name: option.default_factory() if option.default_factory is not MISSING else option.default
        for option in fields(arguments)
    }
    if isinstance(arguments, PruningTrainingArguments):
        defaults |= default_gate_rates(arguments.max_steps)
    return {name: getattr(arguments, name) for name, value in defaults.items() if getattr(arguments, name) != value}


def settings_of_method(
    options: PruningArguments, settings: Mapping[str, Any], one_shot: OneShotArguments
) -> dict[str, Any]:
    """Returns the settings that a result of a method depends on.

    Args:
        options: Options for the method.
        settings: Settings by name, of all methods.
        one_shot: Options of one-shot pruning.
    """
    others = {name for names in options_without_effect(options).values() for name in names}
    return {name: value for name, value in {**settings, **asdict(one_shot)}.items() if name not in others}


def steps_of_stages(method: str, training: PruningTrainingArguments) -> dict[str, int]:
    """Returns the number of optimizer steps by name of the stage; empty for a run without training.

    Args:
        method: Name of the method.
        training: Training arguments.
    """
    final_steps = training.num_final_steps
    if method == GATES:
        return {"with gates": training.max_steps, "after compaction": final_steps}
    return {"after pruning": final_steps} if final_steps else {}


def calibration_of(method: PruningMethod) -> Calibration | None:
    """Describes the calibration audio of a method that has read it; `None` for a method without any.

    Args:
        method: Pruning method.
    """
    audio = method.calibration
    if audio is None:
        return None
    return Calibration(len(audio.waveforms), audio.seconds, audio.num_clips, audio.num_too_short)


def found_by(method: PruningMethod) -> FoundSize | None:
    """Returns the size that a method has found for a target by fidelity; `None` for targets by size.

    Args:
        method: Pruning method that has made its students.
    """
    return method.found if isinstance(method, FidelityMethod) else None
