"""Result files of the comparison."""

import json

import pytest

from experiments.evidence_results import Run, is_finished, load_results, result_path


def test_a_result_without_settings_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / "gates.json"
    path.write_text(json.dumps({"row": "gates"}))
    with pytest.raises(ValueError, match="`max_steps` was None and is 5"):
        is_finished(path, {"max_steps": 5})


def test_results_are_loaded_from_the_raw_folder(tmp_path):
    with pytest.raises(ValueError, match="no results in"):
        load_results(tmp_path)
    for seed in (2, 1):
        path = result_path(tmp_path, Run("gates", 0.72, seed))
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"seed": seed}))
    (tmp_path / "evidence.json").write_text(json.dumps({"summaries": []}))
    assert [result["seed"] for result in load_results(tmp_path)] == [1, 2]
