"""Markdown tables as they are written into cards and reports."""

import pytest

from hf_prunable.runtime.tables import markdown_table


def test_numbers_are_right_aligned():
    assert markdown_table(["", "dense", "pruned"], [["Parameters", "20", "5"], ["Loss", "", "0.1"]]) == (
        "|  | dense | pruned |\n| --- | ---: | ---: |\n| Parameters | 20 | 5 |\n| Loss |  | 0.1 |"
    )


def test_columns_of_text_between_numbers():
    table = markdown_table(["layer", "criterion", "score"], [["3", "cka", "0.9"]], "rlr")
    assert table.splitlines()[1] == "| ---: | --- | ---: |"


@pytest.mark.parametrize(("rows", "alignment"), [([["a"]], None), ([["a", "b"]], "lrr")])
def test_columns_that_do_not_match_are_refused(rows, alignment):
    with pytest.raises(ValueError, match=r"A table has 2 columns, .*: \[\d, \d\]"):
        markdown_table(["name", "value"], rows, alignment)
