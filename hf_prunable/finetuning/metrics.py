"""The metric of classification, which needs no network: `evaluate.load` would fetch a script from the Hub."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score


CONFIDENCE = 0.95


class ClassificationMetric(evaluate.Metric):
    """Accuracy with its 95 % interval, and macro F1.

    The class F1 of a class that is never predicted right is 0; classes are those among references and predictions.

        metric = ClassificationMetric()
        metric.compute(predictions=[0, 1, 1], references=[0, 1, 0])
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy with its 95 % Wilson interval, and macro F1, the mean of the F1 scores of the classes.",
            citation="",
            inputs_description=(
                "Args: predictions and references, both lists of class numbers. Returns: accuracy, accuracy_lower and "
                "accuracy_upper (the ends of the interval), and macro_f1, all in 0..1."
            ),
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        lower, upper = wilson_interval(int((predictions == references).sum()), len(references))
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "accuracy_lower": lower,
            "accuracy_upper": upper,
            "macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0)),
        }


def wilson_interval(correct: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, doi 10.1080/01621459.1927.10502953).

    Args:
        correct: How many were right.
        total: Of how many, 1 or more.
        confidence: Between 0 and 1.

    Returns:
        Its ends, both in 0..1.

    Raises:
        ValueError: If there are no trials or more are right than there are.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(
            f"{correct} of {total} is no proportion; give 1 or more trials and at most as many right ones."
        )
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
