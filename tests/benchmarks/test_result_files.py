"""Result files: a summary, a table, and the complete values."""

import json

from benchmarks.result_files import save_result, without_keys


VALUES = {"machine": "CPU", "rows": [{"seconds": 1.5, "history": [1, 2]}, {"seconds": 2.5, "history": []}]}


def test_keys_are_left_out_at_any_depth():
    assert without_keys(VALUES, ["history"]) == {"machine": "CPU", "rows": [{"seconds": 1.5}, {"seconds": 2.5}]}
    assert without_keys((1, {"a": {"b": 2, "c": 3}}), ["b", "d"]) == [1, {"a": {"c": 3}}]
    assert VALUES["rows"][0]["history"] == [1, 2]


def test_complete_values_lie_beside_the_summary(tmp_path):
    folder = tmp_path / "new" / "folder"
    save_result(folder, "speed", VALUES, "| table |\n", raw_keys=["history"])
    assert json.loads((folder / "raw" / "speed.json").read_text()) == VALUES
    assert json.loads((folder / "speed.json").read_text()) == without_keys(VALUES, ["history"])
    assert (folder / "speed.md").read_text() == "| table |\n"


def test_without_raw_keys_the_summary_is_complete(tmp_path):
    save_result(tmp_path, "speed", VALUES, "")
    assert json.loads((tmp_path / "speed.json").read_text()) == VALUES
    assert not (tmp_path / "raw").exists()
