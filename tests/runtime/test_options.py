"""Options from the command line and from recipes."""

import json
import sys
from dataclasses import dataclass, field

import pytest
import yaml

from hf_prunable.runtime.options import parse_options, recipe_file, recipe_options


@dataclass
class Model:
    name: str = field(metadata={"help": "Of the model."})
    sizes: list[int] = field(default_factory=lambda: [1], metadata={"help": "Of its layers."})


@dataclass
class Training:
    rate: float = field(default=0.5, metadata={"help": "Of learning."})
    quiet: bool = field(default=False, metadata={"help": "Says nothing."})


VALUES = {"name": "a b", "sizes": [3, 4], "rate": 0.001, "quiet": True}


@pytest.fixture(params=["json", "yaml", "yml"])
def recipe(request, tmp_path):
    path = tmp_path / f"recipe.{request.param}"
    path.write_text(json.dumps(VALUES) if request.param == "json" else yaml.safe_dump(VALUES))
    return path


def read(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    return parse_options(Model, Training)


def test_a_recipe_says_what_its_options_say(monkeypatch, recipe):
    expected = (Model("a b", [3, 4]), Training(0.001, True))
    assert read(monkeypatch, str(recipe)) == expected
    assert tuple(read(monkeypatch, *recipe_options(recipe))) == expected


def test_defaults_stay(monkeypatch):
    assert tuple(read(monkeypatch, "--name", "x.json")) == (Model("x.json"), Training())


def test_an_unknown_option_is_refused(monkeypatch, tmp_path):
    (tmp_path / "recipe.yaml").write_text("{name: a, raet: 1.0}")
    with pytest.raises(ValueError, match="raet"):
        read(monkeypatch, str(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize("arguments", [[], ["--name", "x.json"], ["x.txt"], ["a.json", "b.json"]])
def test_anything_else_is_no_recipe(arguments):
    assert recipe_file(arguments) is None
