"""Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


# `transformers.modelcard.make_markdown_table` centers every column and takes its columns from dictionary keys, so that
# numbers do not line up and a header cannot be empty or stand twice.
RULES = {"l": "---", "r": "---:"}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], alignment: str | None = None) -> str:
    """Formats a Markdown table.

    Args:
        header: Column titles.
        rows: Cells of each row, as many as there are columns; "|" and line breaks in them are escaped.
        alignment: One letter per column, "l" for left and "r" for right; by default the first column is left-aligned
            and the others are right-aligned.

    Returns:
        The table, one line per row, without a line break at its end.

    Raises:
        ValueError: If a row or `alignment` has another number of columns than `header`.
    """
    alignment = "l" + "r" * (len(header) - 1) if alignment is None else alignment
    rules = [RULES[letter] for letter in alignment]
    lines = [header, rules, *rows]
    lengths = sorted({len(cells) for cells in lines})
    if len(lengths) > 1:
        raise ValueError(f"A table has {len(header)} columns, but its alignment or a row has others: {lengths}.")
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").splitlines())
