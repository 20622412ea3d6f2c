"""hf-prunable tradeoff: whole runs, interruptions, sizes out of reach."""

import json
import logging
import shlex
import sys

import pytest
from matplotlib.image import imread

from hf_prunable.cli import tradeoff
from hf_prunable.cli.prune import make_parser as pruning_parser
from hf_prunable.cli.tradeoff import TradeoffRecipe, main, make_parser
from hf_prunable.cli.tradeoff_options import TradeoffArguments
from hf_prunable.one_shot import one_shot_pruning
from hf_prunable.one_shot.round_files import load_round
from tests.cli.test_methods_without_gates import place


__all__ = ["place"]

FILES = {"tradeoff.md", "tradeoff.json", "tradeoff.png"}
OPTIONS = (
    "--crop_seconds 0.05 --min_seconds 0.05 --held_out_fraction 0.3 --use_cpu --disable_tqdm --seed 11 "
    "--calibration_clips 8 --calibration_seconds 0.045 --reconstruction_steps 2"
).split()


def arguments(place, folder, *further):
    sources = ["--model_name_or_path", str(place / "dense"), "--dataset_name", str(place / "audio")]
    return [*sources, "--output_dir", str(folder / "sizes"), *OPTIONS, *further]


def read(folder):
    return json.loads((folder / "sizes" / "tradeoff.json").read_text())


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """The folder of a run with one size out of reach, and what it printed and logged."""
    folder, printed, logged = tmp_path_factory.mktemp("tradeoff"), [], []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    logging.getLogger("hf_prunable").addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdout, "write", lambda text: printed.append(text))
        main(arguments(place, folder, "--sparsities", "0.5", "0.2", "0.95"))
    logging.getLogger("hf_prunable").removeHandler(handler)
    return folder, "".join(printed), "\n".join(logged)


def test_the_folder_is_complete(whole):
    folder, printed, _ = whole
    assert {path.name for path in folder.iterdir()} == {"sizes"}
    assert {path.name for path in (folder / "sizes").iterdir()} == FILES
    table = (folder / "sizes" / "tradeoff.md").read_text()
    assert table in printed and table.count("\n| ") == 4
    assert imread(folder / "sizes" / "tradeoff.png").std() > 0.05


def test_all_sizes_are_measured_and_the_loss_rises(whole):
    report = read(whole[0])
    points = report["points"]
    assert [point["target"] for point in points] == [None, 0.2, 0.5]
    assert points[0]["size"] == report["dense"] and points[0]["removed"] == 0
    losses = [point["fidelity"]["distillation_loss"] for point in points]
    assert losses[0] < 1e-5 < losses[1] < losses[2]
    for point in points[1:]:
        assert point["target"] <= point["removed"] < point["target"] + 0.03
        assert point["size"]["num_parameters"] == pytest.approx(
            (1 - point["removed"]) * report["dense"]["num_parameters"]
        )
        assert point["size"]["macs"] < report["dense"]["macs"]
    assert report["inputs"]["calibration"]["num_crops"] == 8 and report["measure"] == "parameters"


def test_sizes_out_of_reach_are_left_out_with_a_word(whole):
    assert "0.95 is left out. `target_sparsity` is 0.95, and removing all units of the kinds qk, vo, int" in whole[2]


def test_the_closing_words_are_a_command_that_makes_a_model(whole, place):
    folder, _, logged = whole
    words = shlex.split(logged.splitlines()[-1])
    assert words[:2] == ["hf-prunable", "prune"]
    options, speech, objective, training, one_shot = pruning_parser().parse(words[2:])
    assert options.method == "one_shot" and options.target_sparsity == [0.5] and options.target_macs is None
    assert options.model_name_or_path == str(place / "dense") and speech.held_out_fraction == 0.3
    assert objective.crop_seconds == 0.05 and training.seed == 11 and training.use_cpu and not training.disable_tqdm
    assert training.output_dir == f"{folder / 'sizes'}-0.5"
    assert (one_shot.calibration_clips, one_shot.reconstruction_steps) == (8, 2)


@pytest.mark.parametrize("num_rounds", [0, 1])
def test_an_interrupted_run_goes_on(place, whole, tmp_path, monkeypatch, num_rounds):
    """To the bit; what is there before that is no result."""
    options = arguments(place, tmp_path, "--sparsities", "0.5", "0.2", "0.95")
    cuts, cut_out = [], one_shot_pruning.cut_out

    def counted(*parts):
        cuts.append(None)
        if len(cuts) == num_rounds + 1:
            raise KeyboardInterrupt
        return cut_out(*parts)

    monkeypatch.setattr(one_shot_pruning, "cut_out", counted)
    with pytest.raises(SystemExit, match="130"):
        main(options)
    assert [path.name for path in tmp_path.iterdir()] == ["sizes.partial"]
    assert not (tmp_path / "sizes.partial" / "result").exists()
    with pytest.raises(SystemExit):
        main([*options, "--calibration_clips", "7"])
    first = len(cuts)
    main(options)
    assert len(cuts) - first == 2 - num_rounds
    assert read(tmp_path)["points"] == read(whole[0])["points"]
    assert [path.name for path in tmp_path.iterdir()] == ["sizes"]


def test_a_kill_before_the_files_are_complete_leaves_no_result(place, whole, tmp_path, monkeypatch):
    options = arguments(place, tmp_path, "--sparsities", "0.5", "0.2")

    def fail(*parts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tradeoff, "draw_tradeoff", fail)
        with pytest.raises(SystemExit, match="130"):
            main(options)
    assert [path.name for path in tmp_path.iterdir()] == ["sizes.partial"]
    monkeypatch.setattr(one_shot_pruning, "cut_out", fail)
    loaded = []
    monkeypatch.setattr(
        "hf_prunable.one_shot.resumable_rounds.load_round", lambda *parts: loaded.append(parts) or load_round(*parts)
    )
    main(options)
    assert len(loaded) == 2 and read(tmp_path)["points"] == read(whole[0])["points"]


def test_multiply_accumulates(place, tmp_path):
    main(arguments(place, tmp_path, "--macs", "--mac_seconds", "0.5", "--sparsities", "0.1"))
    report = read(tmp_path)
    assert report["measure"] == "multiply-accumulates of a 0.5 s clip"
    point = report["points"][1]
    assert 0.1 <= point["removed"] == 1 - point["size"]["macs"] / report["dense"]["macs"] < 0.13


def test_default_sizes():
    assert TradeoffArguments("m", "o").sparsities == pytest.approx([number / 10 for number in range(1, 10)])
    assert TradeoffArguments("m", "o", sparsities=0.5).sparsities == [0.5]


@pytest.mark.parametrize(
    "further, message",
    [
        (["--sparsities", "0.3", "30"], "`sparsities` must lie between 0 and 1, but are [30.0]"),
        (["--sparsities", "0.95", "0.9"], "None of `sparsities` can be reached. `target_sparsity` is 0.95"),
        (["--target_loss", "0.1"], "`--target_loss` has no effect here. `hf-prunable prune --method one_shot` makes"),
        (["--target_sparsity", "0.1"], "there is no option `--target_sparsity`"),
        (["--prune_units", "head"], "one-shot pruning removes qk, vo, int"),
    ],
)
def test_wrong_input_is_one_line(place, tmp_path, capsys, further, message):
    with pytest.raises(SystemExit) as exit:
        main(arguments(place, tmp_path, *further))
    last = capsys.readouterr().err.splitlines()[-1]
    assert exit.value.code == 2 and last.startswith("hf-prunable tradeoff: error: ") and message in last
    assert not list(tmp_path.iterdir())


def test_an_output_folder_that_is_not_empty(place, tmp_path):
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "file").touch()
    with pytest.raises(ValueError, match="is not empty"):
        TradeoffRecipe(*make_parser().parse(arguments(place, tmp_path))).setup()
