"""The shapes in benchmarks/shapes, and how shapes are made."""

import pytest
from transformers import Wav2Vec2FeatureExtractor

from benchmarks.shape_files import SHAPES_FOLDER, ShapeFile, load_shapes
from experiments import make_shapes
from experiments.make_shapes import MODELS, PLANS
from hf_prunable import PrunedShape
from hf_prunable.modeling.size import Measure, UnitCounts, count_macs, count_parameters
from hf_prunable.modeling.units import DEFAULT_UNITS
from tests.helpers.speech_files import tone, write
from tests.helpers.tiny_models import tiny_stock
from tests.helpers.tiny_shapes import tiny_fields


NAMES = [f"{name}-{model}" for name, plan in PLANS.items() for model in plan.models]


@pytest.fixture(scope="module", params=NAMES)
def committed(request):
    """Each shape of the repository."""
    return ShapeFile.load(SHAPES_FOLDER / f"{request.param}.json")


def test_every_plan_has_its_shapes_and_no_other_is_there():
    assert sorted(path.stem for path in SHAPES_FOLDER.iterdir()) == sorted(NAMES)
    assert len(NAMES) == 10 and len(load_shapes("wavlm-large")) == 1


def test_shape_meets_its_target(committed):
    config = committed.prunable_config()
    assert committed.config == MODELS[committed.model]
    assert config.stock_config_class.model_type == committed.model.split("-")[0]
    gone = Measure(committed.measure).sparsity(config, UnitCounts.of(config.shape))
    left = 0.2 if committed.name.startswith("macs-20") else 0.28
    assert committed.target == pytest.approx(1 - left)
    assert left - 1e-3 < 1 - gone <= left
    counts = (UnitCounts.of(config.shape), config.dense_counts)
    sizes = [f"{count(config, of_model):,}" for count in (count_parameters, count_macs) for of_model in counts]
    assert all(text in committed.source for text in (*sizes, "wavlm-mini"))


def test_shape_is_ragged(committed):
    config, shape = committed.prunable_config(), committed.shape
    blocks = [layer.attention for layer in shape.layers if layer.heads]
    assert len(blocks) > config.num_hidden_layers / 2
    head_dim = config.hidden_size // config.num_attention_heads
    for widths in ([block.query_key for block in blocks], [block.value_output for block in blocks]):
        assert len({width for of_block in widths for width in of_block}) > head_dim / 8
        assert sum(len(set(of_block)) > 1 for of_block in widths) > len(blocks) / 2
    intermediates = {layer.intermediate for layer in shape.layers}
    assert len(intermediates) > config.num_hidden_layers / 2
    dense = PrunedShape.dense(config).conv_channels
    if "conv" in committed.units:
        assert min(shape.conv_channels) > 1 and len(set(shape.conv_channels)) > 2
        assert shape.conv_channels[-1] == dense[-1]
    else:
        assert shape.conv_channels == dense


def test_file_is_one_line_a_layer(committed, tmp_path):
    text = (SHAPES_FOLDER / f"{committed.name}.json").read_text()
    assert text.count('"attention"') == len([line for line in text.splitlines() if '"attention"' in line])
    assert committed.save(tmp_path).read_text() == text


def test_shapes_come_from_gates_that_learned(tmp_path, monkeypatch):
    teacher, speech = tmp_path / "teacher", tmp_path / "speech"
    tiny_stock("wavlm").save_pretrained(teacher)
    Wav2Vec2FeatureExtractor().save_pretrained(teacher)
    for number in range(3):
        write(speech / f"{number}.wav", tone(0.2, frequency=200.0 + 50 * number))
    plan = make_shapes.Plan((*DEFAULT_UNITS, "conv"), 0.4, Measure("macs"), ("large-hubert",))
    fields = tiny_fields("hubert", num_hidden_layers=4, intermediate_size=160)
    monkeypatch.setattr(make_shapes, "PLANS", {"macs-60": plan})
    monkeypatch.setattr(make_shapes, "MODELS", {"large-hubert": fields})
    monkeypatch.setattr(make_shapes, "CROP_SECONDS", 0.1)
    command = f"make_shapes --teacher {teacher} --dataset_name {speech} --min_seconds 0.1 --plans macs-60"
    command += f" --output_dir {tmp_path / 'gates'} --shapes_dir {tmp_path / 'shapes'} --max_steps 2 --report_to none"
    monkeypatch.setattr("sys.argv", command.split())
    make_shapes.main()
    (shape,) = load_shapes("large-hubert", folder=tmp_path / "shapes")
    config = shape.prunable_config()
    gone = plan.measure.sparsity(config, UnitCounts.of(config.shape))
    assert (shape.name, config.model_type, config.num_hidden_layers) == ("macs-60-large-hubert", "prunable_hubert", 4)
    assert 0.4 <= gone < 0.41 and not shape.shape.is_dense(config)
    assert "learned on teacher (3 layers, 4 heads of 6" in shape.source and "2 steps of 4 x 0.1 s" in shape.source
