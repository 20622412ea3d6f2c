"""Recipes that users copy: their options exist, belong together, and make a model."""

import json

import pytest
import yaml

from hf_prunable.cli.prune import main, make_parser
from hf_prunable.cli.pruning_methods import check_options, with_method
from hf_prunable.modeling.units import PAPER_UNITS
from hf_prunable.pruning.arguments import PruningTrainingArguments
from hf_prunable.runtime.recipes import load_recipe
from tests.helpers.documentation import make_scratch
from tests.helpers.processes import ROOT


RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
NAMES = {recipe.stem for recipe in RECIPES}
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
STEPS = {"max_steps", "final_steps", "learning_rate", "final_learning_rate", "warmup_steps", "final_warmup_steps"}
# Cuts a run short, and leaves rates and schedule as they are.
SHORT = {
    "per_device_train_batch_size": 2,
    "crop_seconds": 0.5,
    "latency_seconds": 0.3,
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
    "logging_steps": 1,
}
STATISTICS = {"calibration_clips": 10, "calibration_seconds": 0.5, "reconstruction_steps": 2}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return make_scratch(tmp_path_factory.mktemp("recipes") / "scratch")


def test_there_is_a_recipe_for_each_budget():
    assert NAMES == {"quick", "standard", "paper"}


@every_recipe
def test_options_belong_to_the_method_that_the_recipe_names(recipe, tmp_path):
    options, _, objective, training, one_shot = make_parser().parse([str(recipe), "--use_cpu", "true"])
    assert with_method(options, objective, training) is options
    check_options(options, one_shot, training)
    given = load_recipe(recipe)
    assert given["output_dir"] and given["model_name_or_path"] and given["dataset_name"]
    # Values that a user sees are those of the run.
    for name, value in given.items():
        holder = next(part for part in (options, objective, training, one_shot, _) if hasattr(part, name))
        found = getattr(holder, name)
        assert found in (value, [value]), name
    if recipe.stem == "paper":
        assert options.method == "gates" and set(options.prune_units) == set(PAPER_UNITS)
        assert training.max_steps == 50_000 and training.final_steps == 25_000
        defaults = PruningTrainingArguments(str(tmp_path), use_cpu=True)
        assert all(getattr(training, name) == getattr(defaults, name) for name in STEPS - {"final_steps"})
    else:
        assert options.method == "one_shot"


@every_recipe
def test_the_recipe_makes_a_model(recipe, scratch, tmp_path, monkeypatch):
    monkeypatch.chdir(scratch)
    values = load_recipe(recipe) | SHORT | {"model_name_or_path": "microsoft/wavlm-base-plus"}
    values |= {"dataset_name": "recordings", "output_dir": str(tmp_path / "pruned")}
    if values["method"] == "one_shot":
        values |= STATISTICS
    values |= {name: 2 for name in ("max_steps", "final_steps") if name in values}
    values |= {name: 0.3 for name in ("shortest_crop_seconds",) if name in values}
    # The scratch model's smallest size is larger than that of a base model.
    values["target_sparsity"] = [0.3]
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(values))
    main([str(tmp_path / "short.yaml")])
    report = json.loads((tmp_path / "pruned" / "pruning_report.json").read_text())
    assert report["inputs"]["method"] == values["method"]
    assert report["sizes"]["met_sparsity"] >= 0.3
    assert report["inputs"]["has_projections"] == (recipe.stem == "paper")
    assert bool(report["inputs"]["steps"]) == (recipe.stem != "quick")


def test_a_recipe_for_more_steps_than_the_run_has_is_named(scratch, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(scratch)
    values = load_recipe(ROOT / "examples" / "recipes" / "paper.yaml") | SHORT
    values |= {"model_name_or_path": "microsoft/wavlm-base-plus", "dataset_name": "recordings", "max_steps": 3}
    values |= {"output_dir": str(tmp_path / "pruned"), "final_steps": 0, "target_sparsity": [0.3]}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(values))
    main([str(tmp_path / "short.yaml")])
    assert any("Raise `gate_learning_rate` or `max_steps`" in record.getMessage() for record in caplog.records)
