"""Starts an experiment by its short name: `python -m experiments NAME [options]`."""

from __future__ import annotations

from benchmarks.named_commands import run_named_command


EXPERIMENTS = {
    "evidence": "evidence",
    "one_shot": "one_shot",
    "gate_curves": "gate_curves",
    "probe": "probe",
    "layer_profiles": "layer_profiles",
    "depths": "truncation_depths",
    "convexity_changes": "convexity_changes",
    "speaker_segments": "speaker_segments",
    "truncation_and_one_shot": "truncation_and_one_shot",
    "make_shapes": "make_shapes",
    "family_teachers": "family_teachers",
}


def main() -> None:
    run_named_command("experiments", "experiment", EXPERIMENTS)


if __name__ == "__main__":
    main()
