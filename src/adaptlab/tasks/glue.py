"""GLUE: nine tasks of language understanding (Wang et al. 2019, https://arxiv.org/abs/1804.07461).

The test labels were never published officially, so each task's validation rows are halved into selection and report,
as in the evaluation of RED and ReFT. Metrics are the benchmark's own. The prompts called ``t5`` are those T5 was
pretrained with (Raffel et al. 2020, appendix D, https://arxiv.org/abs/1910.10683).
"""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._base import Kind, Submission
from adaptlab.tasks._hub import HubTask
from adaptlab.tasks._nli import NLI_LABELS, nli_prompts

_NO_YES = ("No", "Yes")


class Glue(HubTask):
    """What the nine have in common."""

    hub_id = "nyu-mll/glue"
    version = 1
    kind: Kind = "classification"
    metrics: tuple[str, ...] = ("accuracy",)


class Cola(Glue):
    name = hub_config = "cola"
    summary = "is the English sentence acceptable? 2 classes, 8,551 training rows"
    text_columns = ("sentence",)
    labels = ("unacceptable", "acceptable")
    metrics = ("mcc", "accuracy")
    submissions = (Submission("CoLA.tsv"),)
    prompts = (
        Prompt(name="grammatical", template="{sentence}\nIs this sentence grammatical? Answer:", answers=_NO_YES),
        Prompt(name="t5", template="cola sentence: {sentence}", answers=labels),
    )


class Sst2(Glue):
    name = hub_config = "sst2"
    summary = "sentiment of phrases from film reviews, 2 classes, 67,349 training rows"
    text_columns = ("sentence",)
    labels = ("negative", "positive")
    submissions = (Submission("SST-2.tsv"),)
    prompts = (
        Prompt(name="sentiment", template="Review: {sentence}\nSentiment:", answers=labels),
        Prompt(name="t5", template="sst2 sentence: {sentence}", answers=labels),
    )


class Mrpc(Glue):
    name = hub_config = "mrpc"
    summary = "do two news sentences say the same? 2 classes, 3,668 training rows"
    text_columns = ("sentence1", "sentence2")
    labels = ("not_equivalent", "equivalent")
    metrics = ("accuracy", "f1")
    submissions = (Submission("MRPC.tsv"),)
    prompts = (
        Prompt(
            name="same-meaning",
            template="{sentence1}\n{sentence2}\nDo both sentences mean the same thing? Answer:",
            answers=_NO_YES,
        ),
        Prompt(name="t5", template="mrpc sentence1: {sentence1} sentence2: {sentence2}", answers=labels),
    )


class Qqp(Glue):
    name = hub_config = "qqp"
    summary = "do two questions on Quora ask the same? 2 classes, 363,846 training rows"
    text_columns = ("question1", "question2")
    labels = ("not_duplicate", "duplicate")
    metrics = ("accuracy", "f1")
    submissions = (Submission("QQP.tsv"),)
    prompts = (
        Prompt(
            name="same-thing",
            template="Question 1: {question1}\nQuestion 2: {question2}\n"
            "Question: Do both questions ask the same thing? Answer: ",
            answers=_NO_YES,
        ),
        Prompt(name="t5", template="qqp question1: {question1} question2: {question2}", answers=labels),
    )


class Stsb(Glue):
    name = hub_config = "stsb"
    summary = "how alike are two sentences, from 0 to 5? regression, 5,749 training rows"
    kind = "regression"
    text_columns = ("sentence1", "sentence2")
    metrics = ("pearson", "spearman")
    submissions = (Submission("STS-B.tsv", limits=(0.0, 5.0)),)
    prompts = (
        Prompt(name="alike", template="{sentence1}\n{sentence2}\nHow alike are they, from 0 to 5? Answer:"),
        Prompt(name="t5", template="stsb sentence1: {sentence1} sentence2: {sentence2}"),
    )


class Mnli(Glue):
    name = hub_config = "mnli"
    summary = "does the premise entail the hypothesis? 3 classes, 392,702 training rows; matched and mismatched genres"
    text_columns = ("premise", "hypothesis")
    labels = NLI_LABELS
    validation_split = "validation_matched"
    more_splits: tuple[str, ...] = ("validation_mismatched",)
    submissions = (
        Submission("MNLI-m.tsv", rows="test_matched", words=True),
        Submission("MNLI-mm.tsv", rows="test_mismatched", words=True),
        Submission("AX.tsv", config="ax", words=True),
    )
    prompts = (
        *nli_prompts("premise", "hypothesis", labels),
        Prompt(name="t5", template="mnli hypothesis: {hypothesis} premise: {premise}", answers=labels),
    )


class MnliMismatched(Mnli):
    """MNLI, judged on genres that its training rows do not have."""

    name = "mnli-mismatched"
    summary = "MNLI, judged on genres that training does not have; 3 classes, 392,702 training rows"
    validation_split = "validation_mismatched"
    more_splits = ()


class Qnli(Glue):
    name = hub_config = "qnli"
    summary = "does the sentence answer the question? 2 classes, 104,743 training rows"
    text_columns = ("question", "sentence")
    labels = ("entailment", "not_entailment")
    submissions = (Submission("QNLI.tsv", words=True),)
    prompts = (
        Prompt(
            name="answered",
            template="{question}\n{sentence}\nDoes the sentence answer the question? Answer:",
            answers=("Yes", "No"),
        ),
        Prompt(name="t5", template="qnli question: {question} sentence: {sentence}", answers=labels),
    )


class Rte(Glue):
    name = hub_config = "rte"
    summary = "does the first sentence entail the second? 2 classes, 2,490 training rows"
    text_columns = ("sentence1", "sentence2")
    labels = ("entailment", "not_entailment")
    submissions = (Submission("RTE.tsv", words=True),)
    prompts = (
        *nli_prompts("sentence1", "sentence2", labels),
        Prompt(name="t5", template="rte sentence1: {sentence1} sentence2: {sentence2}", answers=labels),
    )


class Wnli(Glue):
    name = hub_config = "wnli"
    summary = "whom does the pronoun mean? 2 classes, 635 training rows"
    text_columns = ("sentence1", "sentence2")
    labels = ("not_entailment", "entailment")
    submissions = (Submission("WNLI.tsv"),)
    prompts = (
        *nli_prompts("sentence1", "sentence2", labels),
        Prompt(name="t5", template="wnli sentence1: {sentence1} sentence2: {sentence2}", answers=labels),
    )


plugins = (Cola(), Sst2(), Mrpc(), Qqp(), Stsb(), Mnli(), MnliMismatched(), Qnli(), Rte(), Wnli())
