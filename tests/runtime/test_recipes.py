"""Recipes: how values are read, what overrides them, and what is said about a file that is none."""

import json

import pytest
import yaml

from hf_prunable.runtime.recipes import load_recipe, merged_options, option_name, recipe_options, split_recipe


VALUES = {"name": "a b", "sizes": [3, 4], "rate": 0.001, "quiet": True, "limit": None, "settings": {"power": 0.5}}


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_values_of_all_kinds(tmp_path, suffix):
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(json.dumps(VALUES) if suffix == "json" else yaml.safe_dump(VALUES))
    assert load_recipe(path) == VALUES


@pytest.mark.parametrize(
    "text, value",
    [
        ("no", "no"),
        ("on", "on"),
        ("5e-4", 5e-4),
        ("-1", -1),
        ("010", "010"),
        ("2024-01-01", "2024-01-01"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'null'", "null"),
    ],
)
def test_plain_values_are_read_as_in_yaml_1_2(tmp_path, text, value):
    (tmp_path / "recipe.yaml").write_text(f"option: {text}\n")
    assert load_recipe(tmp_path / "recipe.yaml") == {"option": value}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("r.yaml", "a: 1\nb: [1\nc: 2\n", r"r\.yaml, line 3: expected ',' or '\]'"),
        ("r.yaml", "a: 1\na: 2\n", r"r\.yaml, line 2: 'a' stands twice"),
        ("r.yaml", "- a\n", "holds no options"),
        ("r.yaml", "", "holds no options"),
        ("r.json", '{"a": 1,\n}', r"r\.json, line 2: "),
        ("r.txt", "a: 1", r"is no option and no recipe; recipes end in \.yaml, \.yml, \.json"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / name)


def test_a_missing_recipe(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The recipe '.*recipe\.yaml' does not exist"):
        split_recipe([str(tmp_path / "recipe.yaml"), "--rate", "1"])


def test_options_of_a_recipe():
    assert recipe_options(VALUES) == [
        *["--name", "a b", "--sizes", "3", "4", "--rate", "0.001", "--quiet", "true"],
        *["--limit", "none", "--settings", '{"power": 0.5}'],
    ]
    assert recipe_options({"offset": -3, "text": "-x"}) == ["--offset=-3", "--text=-x"]


@pytest.mark.parametrize("options", [["--sizes", "5"], ["--sizes=5"]])
def test_an_option_overrides_a_list_as_a_whole(options):
    assert merged_options({"rate": 1, "sizes": [3, 4]}, options) == ["--rate", "1", *options]


def test_a_switch_is_overridden_by_its_opposite():
    assert merged_options({"ste": True, "max_steps": 3}, ["--no-ste", "--max-steps=4"]) == [
        "--no-ste",
        "--max-steps=4",
    ]


@pytest.mark.parametrize("argument", ["--max_steps", "--max-steps", "--max-steps=3"])
def test_the_name_of_an_option(argument):
    assert option_name(argument) == "max_steps"


@pytest.mark.parametrize("arguments", [[], ["--name", "x.json"]])
def test_a_command_line_without_a_recipe(arguments):
    assert split_recipe(arguments) == ({}, arguments)
