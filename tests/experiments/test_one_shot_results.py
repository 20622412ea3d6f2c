"""Result files of the experiment on one-shot pruning."""

from experiments.one_shot_results import Run, plan_groups, result_path
from experiments.one_shot_students import ROWS


def test_groups_are_the_targets_of_one_row_on_the_same_audio():
    targets = dict.fromkeys(ROWS, [0.3, 0.5])
    groups = plan_groups(["rounds", "magnitude", "rounds"], targets, "speech", [10, 0], 4.0, [1, 2])
    assert [run.name for group in groups for run in group] == [
        f"rounds_{target}_speech_{crops}x4s_seed{seed}"
        for seed in (1, 2)
        for crops in (10, "all")
        for target in (0.3, 0.5)
    ] + ["magnitude_0.3", "magnitude_0.5"]
    assert [len(group) for group in groups] == [2] * 5
    assert [group[0].ladder for group in groups] == [(0.3, 0.5)] * 4 + [()]


def test_the_file_of_a_result_names_its_audio(tmp_path):
    path = result_path(tmp_path, Run("rounds", 0.5, "speech", 10, 4.0, 1))
    assert path == tmp_path / "raw" / "rounds_0.5_speech_10x4s_seed1.json"
