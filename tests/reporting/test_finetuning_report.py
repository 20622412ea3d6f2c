"""The record of a fine-tuning run: the comparison of two models and the table."""

import json

import numpy as np
import pytest

from hf_prunable.finetuning.classifier import FinetunedResult
from hf_prunable.reporting.finetuning_report import (
    FinetuningInputs,
    FinetuningReport,
    FinetuningResults,
    Variant,
    format_table,
    paired_difference,
)
from hf_prunable.reporting.measurement import Latency
from hf_prunable.reporting.provenance import Provenance


REFERENCES = [0, 1] * 50


def result(wrong, seed=1, num_layers=4):
    """A result that has the first clips wrong."""
    predictions = [1 - label if number < wrong else label for number, label in enumerate(REFERENCES)]
    accuracy = 1 - wrong / len(REFERENCES)
    metrics = {"accuracy": accuracy, "accuracy_lower": accuracy - 0.1, "accuracy_upper": 1.0, "macro_f1": accuracy}
    return FinetunedResult(num_layers, seed, metrics, predictions, 2.0, 8.0 / num_layers, [])


def test_paired_difference_is_over_clips():
    difference = paired_difference([result(10), result(20, 2)], [result(30), result(20, 2)], REFERENCES)
    # Seed 1: 20 clips more are right; seed 2: none. A clip's difference is 0.5 for 20 clips and 0 for 80.
    of_clips = np.repeat([0.5, 0.0], [20, 80])
    error = of_clips.std(ddof=1) / 10
    assert difference.mean == pytest.approx(0.1) and difference.by_seed == pytest.approx([0.2, 0.0])
    assert (difference.lower, difference.upper) == pytest.approx((0.1 - 1.96 * error, 0.1 + 1.96 * error))
    assert difference.is_loss


@pytest.mark.parametrize(
    "full, truncated, verdict",
    [
        (10, 30, "truncation lowers accuracy"),
        (30, 10, "truncation raises accuracy"),
        (10, 11, "no significant difference on these test clips"),
        (45, 44, "no model is better than the most frequent class alone, so this says nothing about truncation"),
        (30, 44, "truncation lowers accuracy"),
    ],
)
def test_table(tmp_path, full, truncated, verdict):
    latencies = [Latency(seconds, seconds, seconds, seconds, 1.0, 1.0) for seconds in (0.008, 0.002)]
    variants = {
        "full": Variant(4, 1000, latencies[0], [result(full)]),
        "truncated": Variant(1, 250, latencies[1], [result(truncated, num_layers=1)]),
    }
    inputs = FinetuningInputs(
        command="python run_finetune_speech_commands.py",
        model_name="org/model",
        family="wavlm",
        sampling_rate=16000,
        task="word",
        class_names=["no", "yes"],
        num_clips={"train": 5, "validation": 2, "test": 100},
        num_layers=4,
    )
    report = FinetuningReport(inputs, Provenance({}, None, "a machine"))
    report.results = FinetuningResults(
        references=REFERENCES,
        variants=variants,
        difference=paired_difference(variants["full"].results, variants["truncated"].results, REFERENCES),
    )
    table = format_table(report)
    assert "| Encoder parameters | 1,000 | 250 | 0.250 |" in table
    assert "| Training time per epoch | 2.0 s | 8.0 s | 4.000 |" in table
    assert "| Latency, one clip | 8.0 ms | 2.0 ms | 0.250 |" in table
    assert f"| {1 - full / 100:.4f} ({0.9 - full / 100:.4f} to 1.0000) |" in table
    assert verdict in table
    assert "The most frequent class alone has a test accuracy of 0.5000, and chance is 0.5000 (2 classes)." in table
    assert ("no model is better" in table) == (min(full, truncated) == 44)
    report.save(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert list(saved) == ["inputs", "provenance", "layers", "results"]
    assert saved["results"]["variants"]["truncated"]["results"][0]["metrics"]["accuracy"] == pytest.approx(
        1 - truncated / 100
    )
    del report.results.variants["truncated"]
    report.results.difference = None
    assert "/ full" in table and "/ full" not in format_table(report)
    assert "paired by clip" in table and "paired by clip" not in format_table(report)


def test_only_like_is_compared():
    with pytest.raises(ValueError, match=r"same seeds.*\[1\] and \[2\]"):
        paired_difference([result(1)], [result(1, 2)], REFERENCES)
    with pytest.raises(ValueError, match="1 test clips give no interval"):
        paired_difference([result(1)], [result(1)], [0])
