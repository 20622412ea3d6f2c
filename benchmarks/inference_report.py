"""The latencies of a run of `benchmarks.inference` as a Markdown table."""

from __future__ import annotations

from typing import Any


HEADER = (
    "| model | parameters | MACs | latency, ms | speed-up over stock (quartiles) | MACs, stock / model | "
    "speed-up / MAC ratio |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def heading(result: dict[str, Any]) -> str:
    """What a run timed, in a few words."""
    return f"{result['model']}, {result['dtype']}{', compiled' if result['compile'] else ''}"


def format_cases(result: dict[str, Any]) -> str:
    """A table for each case.

    Args:
        result: As `benchmarks.inference.measure` gives it.
    """
    parts = [f"# {heading(result)}"]
    for case in result["cases"]:
        rows = [_format_row(name, row) for name, row in case["models"].items()]
        parts.append("\n".join([f"## {case['name']}\n", HEADER, *rows]))
    machines = "; ".join(dict.fromkeys(case["machine"] for case in result["cases"]))
    parts.append(
        f"Latency is the median of {result['repetitions']} rounds, in each of which all models ran once; speed-up is "
        "the median of the rounds' ratios, with its quartiles. MACs are multiply-accumulates of the whole batch, padding "
        'included. "prepared": after `prepare_for_inference_()`.\n\n'
        f"Measured on: {machines}."
    )
    return "\n\n".join(parts) + "\n"


def _format_row(name: str, row: dict[str, Any]) -> str:
    first, third = row["speedup_quartiles"]
    cells = (
        name,
        f"{row['num_parameters']:,}",
        f"{row['macs'] / 1e9:.3g} G",
        f"{1e3 * row['median_seconds']:.4g}",
        f"{row['speedup']:.2f} ({first:.2f} to {third:.2f})",
        f"{row['mac_ratio']:.2f}",
        f"{row['speedup_per_mac_ratio']:.2f}",
    )
    return f"| {' | '.join(cells)} |"
