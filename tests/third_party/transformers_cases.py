"""transformers' own test cases of the models, with prunable classes in place of the stock ones.

Nothing is copied: the cases are imported from a checkout of transformers' source.
"""

import copy
import importlib.util
import re
import sys
import unittest
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import NamedTuple

import pytest
import transformers

import hf_prunable
import tests
from hf_prunable import AttentionShape, LayerShape, PrunedShape


# The files with the tests of the families, below `tests/models`.
FILES = {
    "wavlm": "wavlm/test_modeling_wavlm.py",
    "hubert": "hubert/test_modeling_hubert.py",
    "wav2vec2": "wav2vec2/test_modeling_wav2vec2.py",
    "unispeech": "unispeech/test_modeling_unispeech.py",
    "unispeech_sat": "unispeech_sat/test_modeling_unispeech_sat.py",
    "data2vec_audio": "data2vec/test_modeling_data2vec_audio.py",
}


class Difference(NamedTuple):
    """What a test that stock classes pass meets in the prunable ones."""

    message: str
    reason: str


# Tests that stock classes pass and prunable ones do not.
DIFFERENCES = {
    "test_config": Difference(
        "no multiple of `num_attention_heads`",
        "The test makes a configuration of a width that its default number of heads does not divide. Stock models "
        "of it cannot be made; prunable configurations refuse it at once.",
    ),
    "test_keep_in_fp32_modules_exist": Difference(
        "log_alpha",
        "The parameters of gates stay in float32, and a model without gates has none.",
    ),
    "test_model_weights_reload_no_missing_tied_weights": Difference(
        "Configuration and weights of .* disagree",
        "The test loads a checkpoint without weights. Prunable models refuse one where weights of the encoder are missing.",
    ),
}


def add_source(source):
    """Makes the `tests` package of transformers importable beside that of this repository, and returns its common part."""
    folder, package = Path(source, "tests"), Path(source, "src/transformers/__init__.py")
    if not (folder / "models").is_dir() or not package.is_file():
        raise FileNotFoundError(
            f"TRANSFORMERS_SOURCE is {source!r}, which has no tests/models and src/transformers. Give a checkout's root."
        )
    version = re.search(r'^__version__ = "(.*)"', package.read_text(encoding="utf-8"), re.MULTILINE)[1]
    if version != transformers.__version__:
        raise ValueError(
            f"TRANSFORMERS_SOURCE is version {version}, and {transformers.__version__} is installed. Check out the tag "
            f"v{transformers.__version__}."
        )
    tests.__path__.append(str(folder))
    common = importlib.import_module("tests.test_modeling_common")
    stock_values = common.get_values
    # Tests find out by the names of classes which labels a head needs.
    common.get_values = lambda mapping: [
        name for value in stock_values(mapping) for name in (value, f"Prunable{value}")
    ]
    return common


def load_module(family, kind):
    """A copy of the family's test module of its own, which tests one kind of models."""
    path = Path(tests.__path__[-1]) / "models" / FILES[family]
    package = f"tests.models.{path.parent.name}"
    importlib.import_module(package)
    name = f"{package}.{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if kind != "stock":
        for stock_name in list(vars(module)):
            prunable = getattr(hf_prunable, f"Prunable{stock_name}", None)
            if prunable is not None:
                setattr(module, stock_name, prunable)
    return module


def pruned(config):
    """The configuration with a ragged shape: other widths in every head, block and layer, and heads removed."""
    num_heads, head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    layers = []
    for layer_idx in range(config.num_hidden_layers):
        heads = tuple(range(layer_idx % 2, num_heads))
        qk = tuple(head_dim - 1 - index % 2 for index in range(len(heads)))
        vo = tuple(head_dim - 2 + index % 2 for index in range(len(heads)))
        layers.append(LayerShape(AttentionShape(heads, qk, vo), config.intermediate_size - 5 - layer_idx))
    channels = (*(width - 2 - index for index, width in enumerate(config.conv_dim[:-1])), config.conv_dim[-1])
    config = copy.deepcopy(config)
    config.pruned_shape = PrunedShape(channels, tuple(layers)).to_dict()
    return config


def cases(common, family, kind):
    """Cases of a family's models by name, in the family's module for one kind."""
    module = load_module(family, kind)
    return {
        name: case
        for name, case in vars(module).items()
        if isinstance(case, type) and issubclass(case, common.ModelTesterMixin) and issubclass(case, unittest.TestCase)
    }


def prunable_cases(source):
    """Cases of all families by name, for dense and for pruned models.

    Args:
        source: Root of a checkout of transformers at the installed version.
    """
    common = add_source(source)
    made = {}
    for family in FILES:
        stock_cases = cases(common, family, "stock")
        for kind in ("dense", "pruned"):
            for name, case in cases(common, family, kind).items():
                made[f"{name}_{kind}"] = prunable_case(kind, case, stock_cases[name])
    return made


def prunable_case(kind, case, stock_case):
    """A subclass of a case that tests dense or pruned models of the prunable classes.

    Args:
        kind: "dense" or "pruned".
        case: Case of a module in which prunable classes stand for the stock ones.
        stock_case: The same case with the stock classes.
    """

    def set_up(self):
        super(made, self).setUp()
        if kind == "pruned":
            get_config = self.model_tester.get_config
            self.model_tester.get_config = lambda: pruned(get_config())

    # Not every head has a prunable class.
    classes = (getattr(hf_prunable, f"Prunable{stock.__name__}", None) for stock in stock_case.all_model_classes)
    values = {
        "setUp": set_up,
        # A subtest that fails is a failure of its test.
        "subTest": lambda self, *args, **kwargs: nullcontext(),
        "all_model_classes": tuple(prunable for prunable in classes if prunable is not None),
        # Pipelines with models from the Hub.
        "pipeline_model_mapping": {},
    }
    values |= {name: compared(name, case, stock_case) for name in dir(case) if name.startswith("test_")}
    made = type(f"{case.__name__}_{kind}", (case,), values)
    return made


def compared(name, case, stock_case):
    """The test `name` of a case, if it is one: it may differ from the stock case's as `DIFFERENCES` says alone."""
    method, difference = getattr(case, name), DIFFERENCES.get(name)
    if not callable(method):
        # A setting of the case.
        return method

    @wraps(method)
    def test(self):
        try:
            method(self)
        except unittest.SkipTest:
            raise
        except Exception as error:
            if difference is not None and re.search(difference.message, str(error)):
                pytest.xfail(difference.reason)
            if not passes(stock_case, name):
                self.skipTest("the stock classes fail too")
            raise
        if difference is not None:
            self.fail("The prunable classes now pass as the stock ones do: take the test out of DIFFERENCES.")

    return test


def passes(case, name):
    """Whether the test `name` of a case passes."""
    result = unittest.TestResult()
    case(name).run(result)
    return result.wasSuccessful()
