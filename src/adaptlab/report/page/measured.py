"""How each number came about."""

from __future__ import annotations

from collections.abc import Sequence

from adaptlab.report._html import Html, element
from adaptlab.report.select import RunRow

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
        "Training FLOPs",
        "Forward, backward and optimiser, of the operations that training executes: a few short passes are counted at "
        "three lengths, a parabola in the length is fitted and checked on a fourth, and the run's real batches are "
        "added up with their padding. Matrix products, convolutions, attention, Fourier transforms and linear solves "
        "count; other elementwise work does not.",
    ),
    (
        "Memory",
        "On CUDA the most that torch's allocator handed out. On a CPU the process's peak resident memory above what "
        "it held with the libraries loaded, in a fresh process that trains a few steps of this configuration at its "
        "longest batch; a model too small to be told from the libraries has none.",
    ),
    (
        "Training time",
        "Wall clock of the optimiser's steps of one run, without loading, evaluation and writing. Clocks compare only "
        "between runs with the same device, number of threads and torch version. Methods that leave the lower layers "
        "as they are (head, top-layers) compute them once a row; a run that is handed rows of an earlier one has on "
        "its clock what these took, as if it had been alone.",
    ),
    (
        "Answering one row",
        "Median of 5 to 30 repetitions in the fresh process that measures memory: one row of the median length, alone, "
        "from its tokens to its answer, without reading and tokenising the text. Merged: the same after the method's "
        "weights were added to the base's, in the same process. Methods that add layers or tokens cannot be merged; "
        "those that train the base have nothing to merge. A small model alone on a processor is bound by the calls of "
        "its operations: there merging saves the adapter's calls, and on larger batches little.",
    ),
    (
        "Why LoRA may be no faster here",
        "Freezing the base saves its weight gradients, about a third of a step's operations, and the optimiser's work. "
        "The forward pass stays whole, and gradients still flow back through the frozen layers to the lowest adapter. "
        "Each adapter adds small matrix products of its own, which a processor runs less efficiently than large ones; "
        "on small models, short texts and small batches that can cost more than freezing saves. What it saves "
        "reliably is optimiser memory and disk.",
    ),
    (
        "What your budget buys",
        "Parameters, memory and disk admit a method or not. A limit on FLOPs or seconds stops training early: for each "
        "seed the best score on the selection rows up to there, from the learning curve, then the mean over seeds. It "
        "moves in steps, at the evaluations.",
    ),
    (
        "Calibration",
        "Of the probability of the answer given. Expected calibration error: the gap between confidence and the share "
        "that is right, in 15 bins of equal width, weighted by their answers. Brier score: the squared distance of the "
        "probabilities from the right answer, summed over classes; 0 is perfect, 2 the worst.",
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


#: Of runs that are distilled from a prompted teacher.
DISTILLED = (
    "Context distillation",
    "A step includes what is asked of the teacher in it: nothing where its targets are kept (a frozen teacher's, up to "
    "1 GiB for all rows), else a pass over its prompts. Targets that are kept are computed once, before training, in "
    "neither its time nor its FLOPs; on a CPU they count as memory, and what the teacher holds while it computes them "
    "does not. The FLOPs of a teacher that is asked in every step are counted on five batches, and estimated from them "
    "for the others.",
)


def measured(rows: Sequence[RunRow]) -> Html:
    distilled = any(row.given.get("objective") == "context-distillation" for row in rows)
    said = (*MEASURED, DISTILLED) if distilled else MEASURED
    return element("dl", [[element("dt", term), element("dd", text)] for term, text in said])
