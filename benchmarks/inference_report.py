"""Markdown tables of the inference benchmark."""

from __future__ import annotations

from typing import Any

from hf_prunable.runtime.tables import markdown_table


HEADER = (
    "Model",
    "Parameters",
    "MACs",
    "Latency (ms)",
    "Speed-up over stock (quartiles)",
    "MACs, stock / model",
    "Speed-up / MAC ratio",
)


def heading(result: dict[str, Any]) -> str:
    """Title of a result: model, data type and whether it was compiled.

    Args:
        result: Result of `benchmarks.inference.measure`.
    """
    return f"{result['model']}, {result['dtype']}{', compiled' if result['compile'] else ''}"


def format_cases(result: dict[str, Any]) -> str:
    """Formats one table for each case.

    Args:
        result: Result of `benchmarks.inference.measure`.
    """
    parts = [f"# {heading(result)}"]
    for case in result["cases"]:
        rows = [_format_cells(name, row) for name, row in case["models"].items()]
        parts += [f"## {case['name']}", markdown_table(HEADER, rows)]
    machines = "; ".join(dict.fromkeys(case["machine"] for case in result["cases"]))
    parts.append(
        f"Latency: median of {result['repetitions']} rounds; each round runs every model once. Speed-up: median of the "
        "rounds' ratios, with quartiles. MACs: multiply-accumulates of the whole batch, padding included. "
        '"prepared": after `prepare_for_inference_()`.\n\n'
        f"Measured on: {machines}."
    )
    return "\n\n".join(parts) + "\n"


def _format_cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    first, third = row["speedup_quartiles"]
    return (
        name,
        f"{row['num_parameters']:,}",
        f"{row['macs'] / 1e9:.3g} G",
        f"{1e3 * row['median_seconds']:.4g}",
        f"{row['speedup']:.2f} ({first:.2f} to {third:.2f})",
        f"{row['mac_ratio']:.2f}",
        f"{row['speedup_per_mac_ratio']:.2f}",
    )
