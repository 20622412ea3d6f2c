"""Options from the command line and from recipes."""

import json
from dataclasses import dataclass, field

import pytest
import yaml

from hf_prunable.runtime.options import OptionParser, OptionTable
from hf_prunable.runtime.recipes import recipe_options


@dataclass
class Model:
    name: str = field(metadata={"help": "Name of the model."})
    sizes: list[int] = field(default_factory=lambda: [1], metadata={"help": "Sizes of its layers."})

    def __post_init__(self):
        if 0 in self.sizes:
            raise ValueError("`sizes` must be\nabove 0.")


@dataclass
class Training:
    rate: float = field(default=0.5, metadata={"help": "Learning rate."})
    quiet: bool = field(default=False, metadata={"help": "Show no messages."})
    ste: bool = field(default=True, metadata={"help": "Estimator."})
    frozen: bool | None = field(default=None, metadata={"help": "Freeze."})
    trackers: None | str | list[str] = field(default="none", metadata={"help": "Trackers."})
    limit: int | None = field(default=2, metadata={"help": "Limit."})
    words: list[str] | None = field(default=None, metadata={"help": "Words."})
    num_epochs: int = field(default=3, metadata={"help": "Epochs."})


TABLE = OptionTable(
    groups={"model": ["name", "sizes"], "training": ["rate", "quiet"]},
    help_texts={"rate": "Learning rate of the weights."},
    refused={"num_epochs": "Use `rate`."},
)
VALUES = {"name": "a b", "sizes": [3, 4], "rate": 0.001, "quiet": True}


@pytest.fixture
def parser():
    return OptionParser("the command", "What it does.", (Model, Training), TABLE)


@pytest.fixture(params=["json", "yaml", "yml"])
def recipe(request, tmp_path):
    path = tmp_path / f"recipe.{request.param}"
    path.write_text(json.dumps(VALUES) if request.param == "json" else yaml.safe_dump(VALUES))
    return str(path)


def write_recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    return str(tmp_path / "recipe.yaml")


def test_a_recipe_says_what_its_options_say(parser, recipe):
    expected = (Model("a b", [3, 4]), Training(0.001, True))
    assert parser.parse([recipe]) == expected
    assert parser.parse(recipe_options(VALUES)) == expected


def test_the_command_line_wins_over_the_recipe(parser, recipe):
    expected = (Model("a b", [7]), Training(0.25, False))
    assert parser.parse([recipe, "--sizes", "7", "--rate=0.25", "--quiet", "false"]) == expected


def test_defaults_stay(parser):
    assert parser.parse(["--name", "x.json"]) == (Model("x.json"), Training())


@pytest.mark.parametrize("name", ["quiet", "frozen"])
@pytest.mark.parametrize("arguments, value", [([], True), (["true"], True), (["false"], False), (["no"], False)])
def test_a_switch_with_and_without_a_value(parser, name, arguments, value):
    assert getattr(parser.parse(["--name", "a", f"--{name}", *arguments])[1], name) is value


def test_an_option_of_one_value_or_several(parser, tmp_path):
    assert parser.parse(["--name", "a", "--trackers", "b", "c"])[1].trackers == ["b", "c"]
    assert parser.parse([write_recipe(tmp_path, "{name: a, trackers: [b, c]}")])[1].trackers == ["b", "c"]


@pytest.mark.parametrize(
    "arguments", [["--limit", "none"], ["--limit=none", "--quiet"], ["--quiet", "--limit", "none"]]
)
def test_none_on_the_command_line(parser, arguments):
    assert parser.parse(["--name", "none", *arguments])[:1] == (Model("none"),)
    assert parser.parse(["--name", "none", *arguments])[1].limit is None


def test_null_in_a_recipe(parser, tmp_path):
    recipe = write_recipe(tmp_path, "{name: a, limit: null, words: null}")
    assert parser.parse([recipe])[1] == Training(limit=None, words=None)
    assert parser.parse([recipe, "--limit", "3", "--words", "b"])[1] == Training(limit=3, words=["b"])


def error_of(parser, capsys, *arguments):
    with pytest.raises(SystemExit) as exit:
        parser.parse(list(arguments))
    output = capsys.readouterr()
    assert exit.value.code == 2 and not output.out and output.err.count("\n") == 1
    return output.err.strip()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--nmae", "a"], "the command: error: there is no option `--nmae`. Did you mean `name`?"),
        (["--name", "a", "--rat=1"], "there is no option `--rat`. Did you mean `rate`?"),
        (["--name", "a", "--zzz"], "there is no option `--zzz`. `the command --help_all` lists all options."),
        (["--rate", "1"], "the following arguments are required: --name"),
        (["--name", "a", "--rate", "fast"], "argument --rate: invalid float value: 'fast'"),
        (["--name", "a", "--sizes", "0"], "the command: error: `sizes` must be above 0."),
        (["--name", "a", "--num_epochs", "3"], "`--num_epochs` has no effect here. Use `rate`."),
        (["--name", "a", "--num-epochs=3"], "`--num_epochs` has no effect here. Use `rate`."),
        (["--name", "a", "b.yaml"], "unexpected argument 'b.yaml'. There may be one recipe, before all options."),
        (["nowhere.yaml"], "The recipe 'nowhere.yaml' does not exist."),
        (["x.txt"], "'x.txt' is no option and no recipe"),
    ],
)
def test_a_wrong_command_line_is_one_line(parser, capsys, arguments, message):
    assert message in error_of(parser, capsys, *arguments)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{name: a, raet: 1.0}", "there is no option `raet` in recipe.yaml. Did you mean `rate`?"),
        ("{name: a, num_epochs: 1}", "`num_epochs` in recipe.yaml has no effect here. Use `rate`."),
        ("{name: a, rate: }", "argument --rate: invalid float value: 'none'"),
        ("name: a\nrate: [", "recipe.yaml, line 2: "),
        ("{name: a, rate: fast}", "argument --rate: invalid float value: 'fast'"),
    ],
)
def test_a_wrong_recipe_is_one_line(parser, capsys, monkeypatch, tmp_path, text, message):
    write_recipe(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    assert message in error_of(parser, capsys, "recipe.yaml")


def test_two_recipes_are_refused(parser, capsys, recipe):
    assert "There may be one recipe" in error_of(parser, capsys, recipe, recipe)


def test_help_shows_the_groups_alone(parser, capsys):
    with pytest.raises(SystemExit) as exit:
        parser.parse(["--help"])
    shown = capsys.readouterr().out
    assert exit.value.code == 0
    assert shown.startswith("usage: the command [RECIPE.yaml] [--option value ...]\n\nWhat it does.\n\nA recipe is ")
    assert "\n\nmodel:\n  --name TEXT    Name of the model. (required)\n" in shown
    assert "Sizes of its layers. (default: 1)" in shown
    assert "Learning rate of the weights. (default: 0.5)" in shown
    assert "--trackers" not in shown and "--no_ste" not in shown


def test_help_all_shows_the_rest(parser, capsys):
    with pytest.raises(SystemExit) as exit:
        parser.parse(["--help_all"])
    shown = capsys.readouterr().out
    assert exit.value.code == 0
    assert "--trackers" in shown and "num_epochs" not in shown and shown.count("Sizes of its layers") == 1
