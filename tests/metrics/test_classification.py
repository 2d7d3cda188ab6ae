"""Classification metrics say what scikit-learn says, and an unusable answer is wrong everywhere."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from adaptlab.metrics import Answers, registry, score

ALWAYS = {
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
    "loss",
}


def drawn(classes: int, items: int = 300, seed: int = 0, unusable: float = 0.0) -> Answers:
    """Answers of a model that is right about half the time."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), items)
    predicted = probabilities.argmax(1)
    gold = np.where(generator.random(items) < 0.5, predicted, generator.integers(0, classes, items))
    predicted = np.where(generator.random(items) < unusable, -1, predicted)
    return Answers(gold, predicted, probabilities, classes)


def reference(answers: Answers) -> dict[str, float]:
    """The same numbers from scikit-learn; -1 is a label that no item has, so it is left out of the means."""
    gold, predicted = answers.gold, answers.predicted
    present = sorted(({*gold.tolist(), *predicted.tolist()}) - {-1})
    found: dict[str, float] = {
        "accuracy": sklearn_metrics.accuracy_score(gold, predicted),
        "mcc": sklearn_metrics.matthews_corrcoef(gold, predicted),
        "loss": sklearn_metrics.log_loss(gold, answers.probabilities, labels=range(answers.classes)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["balanced_accuracy"] = sklearn_metrics.balanced_accuracy_score(gold, predicted)
        for average in ("macro", "weighted"):
            precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
                gold, predicted, labels=present, average=average, zero_division=0
            )
            found |= {f"{average}_precision": precision, f"{average}_recall": recall, f"{average}_f1": f1}
    if answers.classes == 2:
        found["f1"] = sklearn_metrics.f1_score(gold, predicted, labels=[1], average="macro", zero_division=0)
    return found


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("unusable", [0.0, 0.2])
def test_metrics_equal_scikit_learn(classes: int, unusable: float) -> None:
    answers = drawn(classes, seed=classes, unusable=unusable)
    expected = reference(answers)
    found = score(answers, "classification", sorted(expected))
    assert found == pytest.approx(expected, abs=1e-9)


def test_classes_that_nobody_has_are_left_out_of_macro_means() -> None:
    answers = Answers(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), None, classes=5)
    expected = sklearn_metrics.f1_score(answers.gold, answers.predicted, average="macro")
    assert registry.get("macro_f1").compute(answers) == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(ALWAYS - {"loss"} | {"mcc", "f1"}))
def test_an_unusable_answer_never_scores_better_than_a_wrong_one_and_worse_than_a_right_one(name: str) -> None:
    gold = np.array([0, 1, 0, 1, 1, 0, 1, 0])
    right = registry.get(name).compute(Answers(gold, gold, None, 2))
    one_unusable = registry.get(name).compute(Answers(gold, np.where(np.arange(8) == 1, -1, gold), None, 2))
    all_unusable = registry.get(name).compute(Answers(gold, np.full(8, -1), None, 2))
    assert right == 1.0
    if "precision" in name:  # nothing false was claimed
        assert one_unusable == 1.0
    else:
        assert one_unusable < 1.0
    assert all_unusable == 0.0


def test_every_classification_run_stores_the_usual_metrics_after_the_wanted_ones() -> None:
    found = score(drawn(2), "classification", ("mcc", "accuracy"))
    assert list(found)[:2] == ["mcc", "accuracy"]
    assert set(found) == ALWAYS | {"mcc"}


def test_loss_is_left_out_without_probabilities_unless_it_is_wanted() -> None:
    answers = Answers(np.array([0, 1]), np.array([0, 1]), None, 2)
    assert "loss" not in score(answers, "classification", ())
    assert math.isnan(score(answers, "classification", ("loss",))["loss"])


def test_loss_stays_finite_when_a_probability_underflows() -> None:
    answers = Answers(np.array([0, 1]), np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]), 2)
    assert 40 < registry.get("loss").compute(answers) < 50  # half of -log of the smallest float32


def test_f1_is_undefined_for_more_than_two_classes() -> None:
    assert math.isnan(registry.get("f1").compute(drawn(3)))


def test_mcc_is_zero_for_a_constant_answer() -> None:
    assert registry.get("mcc").compute(Answers(np.array([0, 1, 1]), np.array([1, 1, 1]), None, 2)) == 0.0
