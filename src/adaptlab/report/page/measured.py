"""How each number came about."""

from __future__ import annotations

from adaptlab.report._html import Html, element

#: What stands on the page and how it came about; docs/records.md has the same for every field of a record.
MEASURED = (
    (
        "Score",
        "The task's primary metric on the report rows, which are looked at once, at the end. The learning rate and the "
        "checkpoint are chosen on other rows. Mean and sample standard deviation (divisor n - 1) are over seeds; a "
        "seed decides data order, initial values and dropout.",
    ),
    (
        "Interval",
        "Student's t interval of the mean over seeds, 95 %. It says where the mean of many more seeds would lie, and "
        "nothing about other data.",
    ),
    (
        "Trained parameters",
        "Counted on the model that was trained, without the task's head, which is counted apart and which every method "
        "trains unless its configuration says otherwise.",
    ),
    (
        "Training time",
        "Wall clock of the optimiser's steps of one run, without loading, evaluation and writing. Clocks compare only "
        "between runs with the same device, number of threads and torch version. Fewer trained parameters save "
        "optimiser work and the gradients of frozen weights, but the forward pass stays whole: so a small method need "
        "not be faster.",
    ),
    (
        "Learning curves",
        "From the evaluations during training, on the selection rows. The loss is the mean over all of them.",
    ),
    (
        "Runs that did not finish",
        "They stay in every count of runs and are in no mean. A diverged run met a loss that was not finite.",
    ),
)


def measured() -> Html:
    return element("dl", [[element("dt", term), element("dd", text)] for term, text in MEASURED])
