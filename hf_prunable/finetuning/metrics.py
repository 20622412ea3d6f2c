"""The metric of classification, computed locally: `evaluate.load` would download a script from the Hub."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score


CONFIDENCE = 0.95


class ClassificationMetric(evaluate.Metric):
    """Accuracy with its 95 % confidence interval, and macro F1.

    Macro F1 is the mean over the classes that occur among references or predictions. A class without a correct
    prediction has an F1 of 0.

        metric = ClassificationMetric()
        metric.compute(predictions=[0, 1, 1], references=[0, 1, 0])
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy with its 95 % Wilson interval, and macro F1, the mean of the classes' F1 scores.",
            citation="",
            inputs_description=(
                "Args: predictions and references, both lists of class indices. Returns: accuracy, accuracy_lower and "
                "accuracy_upper (the ends of the interval), and macro_f1, all from 0 to 1."
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        num_correct = int((np.asarray(predictions) == np.asarray(references)).sum())
        lower, upper = wilson_interval(num_correct, len(references))
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "accuracy_lower": lower,
            "accuracy_upper": upper,
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
        }


def wilson_interval(correct: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Computes the score interval of a proportion (Wilson 1927, doi 10.1080/01621459.1927.10502953).

    Args:
        correct: Number of correct predictions, from 0 to `total`.
        total: Number of predictions, 1 or more.
        confidence: Confidence level, between 0 and 1.

    Returns:
        Lower and upper end, from 0 to 1.

    Raises:
        ValueError: If `total` is 0, or `correct` is not in 0 to `total`.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(
            f"{correct} of {total} is no proportion; give a total of 1 or more, and from 0 to the total as correct."
        )
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
