"""Starts a benchmark by its short name: `python -m benchmarks NAME [options]`."""

from __future__ import annotations

from benchmarks.named_commands import run_named_command


BENCHMARKS = {
    "inference": "inference",
    "training": "training",
    "startup": "startup",
    "convexity": "convexity_speed",
    "step_overhead": "step_overhead",
    "audio_crops": "audio_crops",
    "long_audio": "long_audio",
    "student_shapes": "student_shapes",
}


def main() -> None:
    run_named_command("benchmarks", "benchmark", BENCHMARKS)


if __name__ == "__main__":
    main()
