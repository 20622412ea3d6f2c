"""Results of the comparison with invented values."""

from experiments.compared_students import TEACHER


TARGET = 0.5


def result_of(run, accuracy=0.5):
    """A result of `Comparison.run` with invented values."""
    values = {"num_parameters": 500, "sparsity": TARGET, "macs": 10**9, "history": [], "shape": {}}
    values["words"] = {"accuracy": accuracy, "last_layer": 0.4, "mean_over_layers": 0.3, "classes": 2, "test_clips": 4}
    values["speakers"] = {"accuracy": accuracy, "classes": 3, "test_clips": 6}
    values["units"] = {"purity": accuracy, "purity_by_chance": 0.1, "units": 100, "frames": 5000}
    return values if run.row == TEACHER else values | {"held_out_loss": 0.1}


def results_of(runs, accuracy=lambda run: 0.5):
    """Results of several runs, as `load_results` returns them."""
    return [
        {"row": run.row, "target_sparsity": run.target_sparsity, "seed": run.seed, "settings": {}, "machine": "CPU"}
        | result_of(run, accuracy=accuracy(run))
        for run in runs
    ]
