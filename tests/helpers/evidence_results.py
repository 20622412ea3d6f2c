"""Results of the comparison with invented values."""

from experiments.compared_students import STUDENTS, TEACHER


TARGET = 0.5
GROUP_SIZES = [2, 3, 1]


def result_of(run, correct=3, loss=0.1):
    """A result of `Comparison.run` with invented values: the first clips of six are classified correctly."""
    bits = "1" * correct + "0" * (6 - correct)
    probe = {"accuracy": correct / 6, "drop_in_accuracy": correct / 6, "classes": 2, "group_sizes": GROUP_SIZES}
    probe |= {"correct": bits, "drop_in_correct": bits}
    units = {"agreement": 0.75, "agreement_by_chance": 0.1, "num_units": 100, "group_sizes": [40, 60]}
    is_teacher = run.row == TEACHER
    values = {
        "num_parameters": 500,
        "sparsity": TARGET,
        "macs": 10**9,
        "loss": 0.0 if is_teacher else loss,
        "cosine": [1.0, 1.0, 1.0] if is_teacher else [1.0, 0.9, 0.8],
        "relative_error": [0.0, 0.1, 0.2],
        "held_out_frames": 100,
        "words": probe,
        "speakers": probe,
        "units": units | {"agreeing_frames": [30, 45]},
    }
    return values if is_teacher or not STUDENTS[run.row].is_trained else values | {"history": []}


def results_of(runs, correct=lambda run: 3):
    """Results of several runs, as `load_results` returns them."""
    return [
        {"row": run.row, "target_sparsity": run.target_sparsity, "seed": run.seed, "settings": {}, "machine": "CPU"}
        | result_of(run, correct(run))
        for run in runs
    ]
