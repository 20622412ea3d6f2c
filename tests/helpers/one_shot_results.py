"""Results of the experiment on one-shot pruning with invented values."""

from experiments.one_shot_results import Run


DRAW = ("speech", 10, 4.0)


def runs_of(rows, targets, seeds=(42,), draw=DRAW):
    return [Run(row, target, *draw, seed) for row in rows for target in targets for seed in seeds]


def result_of(run, loss=0.1, **further):
    """A result on disk of a run."""
    seconds = (run.num_crops or 0) * (run.crop_seconds or 0.0)
    return {
        "row": run.row,
        "target_sparsity": run.target_sparsity,
        "audio": run.audio,
        "seed": run.seed,
        "num_crops": run.num_crops or 0,
        "calibration_seconds": seconds,
        "pruning_seconds": 1.0,
        "num_parameters": round(1000 * (1 - run.target_sparsity)),
        "sparsity": run.target_sparsity,
        "macs": 10**9,
        "loss": loss,
        "cosine": [1.0, 0.9],
        "relative_error": [0.0, 0.1],
        "held_out_frames": 700,
        "shape": {},
        "held_out": ["a.flac", "b.flac"],
        "machine": "CPU",
        "remark": None,
        "settings": {"crop_seconds": 4.0, "held_out_every": 5, **run.settings},
        **further,
    }
