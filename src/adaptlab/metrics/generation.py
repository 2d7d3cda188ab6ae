"""Metrics over texts. An answer in which nothing usable was written is wrong, and counted.

BLEU and chrF are sacrebleu's, from 0 to 100; ROUGE is rouge-score's, from 0 to 1. A row may have several references;
each library takes the nearest, as it always does.
"""

from __future__ import annotations

import importlib.util
import math
import re
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptlab.errors import ConfigError
from adaptlab.metrics._base import Answers, Metric
from adaptlab.tasks._base import Kind

Floats = NDArray[np.floating]


def references(answers: Answers) -> list[tuple[str, ...]]:
    """For each row every text that is a right answer."""
    gold: list[tuple[str, ...]] = [(str(text),) for text in answers.gold]
    if answers.examples is None:
        return gold
    return [row.references or alone for row, alone in zip(answers.examples, gold, strict=True)]


def normalised(text: str) -> str:
    """Without the white space around it, and with single spaces inside."""
    return " ".join(text.split())


class OfTexts(Metric):
    """A metric of generated texts. ``library`` is the module it is computed with, from the extra ``generation``."""

    kinds: tuple[Kind, ...] = ("generation",)
    library: str | None = None

    def __init__(self, name: str, summary: str) -> None:
        self.name, self.summary = name, summary

    def require(self) -> None:
        if self.library is not None and importlib.util.find_spec(self.library) is None:
            raise ConfigError(
                f"The metric '{self.name}' needs {self.library}: install it with pip install 'adaptlab[generation]'."
            )


class OfEachText(OfTexts):
    """The mean of a value a text."""

    def compute(self, answers: Answers) -> float:
        return float(np.mean(self.per_example(answers)))

    @abstractmethod
    def per_example(self, answers: Answers) -> Floats:
        """``[n]`` values."""


class OfCorpus(OfTexts):
    """A metric over sums of statistics of single texts, so that a resample costs one sum."""

    library = "sacrebleu"

    @abstractmethod
    def statistics(self, answers: Answers) -> Floats:
        """``[n, statistics]``."""

    @abstractmethod
    def of_sums(self, sums: Floats) -> float:
        """The metric, from ``[statistics]`` summed over texts."""

    def compute(self, answers: Answers) -> float:
        return self.of_sums(self.statistics(answers).sum(0))

    def resampled(self, answers: Answers, counts: NDArray[np.integer]) -> Floats:
        return np.array([self.of_sums(sums) for sums in counts @ self.statistics(answers)])


class Bleu(OfCorpus):
    """Corpus BLEU of up to four words, tokenised as WMT does (Post 2018, https://aclanthology.org/W18-6319)."""

    def statistics(self, answers: Answers) -> Floats:
        """Right n-grams, all n-grams, length, reference length."""
        from sacrebleu.metrics import BLEU

        bleu = BLEU(effective_order=True)  # concerns single texts' scores, of which only the counts are taken
        scores = [
            bleu.sentence_score(str(text), list(right))
            for text, right in zip(answers.predicted, references(answers), strict=True)
        ]
        return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=np.float64)

    def of_sums(self, sums: Floats) -> float:
        from sacrebleu.metrics import BLEU

        whole = [int(value) for value in sums]
        score = BLEU.compute_bleu(whole[:4], whole[4:8], whole[8], whole[9], smooth_method="exp")
        return float(score.score)


class Chrf(OfCorpus):
    """Corpus chrF2 of up to six characters (Popović 2015, https://aclanthology.org/W15-3049)."""

    def statistics(self, answers: Answers) -> Floats:
        """For each order n-grams written, in the reference, and in both."""
        chrf, right = self._chrf(), references(answers)
        most = max(map(len, right))
        columns = [[texts[place] if place < len(texts) else None for texts in right] for place in range(most)]
        texts = [str(text) for text in answers.predicted]
        return np.array(chrf._extract_corpus_statistics(texts, columns), dtype=np.float64)

    def of_sums(self, sums: Floats) -> float:
        return float(self._chrf()._compute_f_score(list(sums)))

    def _chrf(self) -> Any:
        from sacrebleu.metrics import CHRF

        return CHRF()


class Rouge(OfEachText):
    """ROUGE's F-measure with Porter's stemmer (Lin 2004, https://aclanthology.org/W04-1013)."""

    library = "rouge_score"

    def __init__(self, variant: str, summary: str) -> None:
        super().__init__("rouge_l" if variant == "rougeL" else variant, summary)
        self._variant = variant

    def per_example(self, answers: Answers) -> Floats:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        scorer = RougeScorer([self._variant], tokenizer=DefaultTokenizer(use_stemmer=True))
        return np.array(
            [
                scorer.score_multi(list(right), str(text))[self._variant].fmeasure
                for text, right in zip(answers.predicted, references(answers), strict=True)
            ]
        )


class ExactMatch(OfEachText):
    """White space aside, letter by letter."""

    always = True

    def per_example(self, answers: Answers) -> Floats:
        return np.array(
            [
                float(normalised(str(text)) in map(normalised, right))
                for text, right in zip(answers.predicted, references(answers), strict=True)
            ]
        )


class Unusable(Metric):
    """Of free answers; what is chosen by likelihood is always usable."""

    name = "unusable"
    summary = "share of answers in which nothing usable was written; they count as wrong"
    kinds: tuple[Kind, ...] = ("classification", "multiple-choice", "regression", "generation")
    higher_is_better = False
    of_written = True

    def compute(self, answers: Answers) -> float:
        return float(np.mean(self.per_example(answers)))

    def per_example(self, answers: Answers) -> Floats:
        if answers.predicted.dtype == object:
            return np.array([float(not str(text).strip()) for text in answers.predicted])
        numbers = answers.predicted.astype(np.float64)
        return np.where(np.isnan(numbers) | ((answers.classes > 0) & (numbers < 0)), 1.0, 0.0)


_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def final_number(text: str) -> float | None:
    """The number after the last ``####``, else the last number in ``text``; ``None`` where there is none.

    Thousands' commas, a currency sign and a full stop at the end are no part of it.
    """
    marked = text.rsplit("####", 1)
    found = _NUMBER.findall(marked[1])[:1] if len(marked) == 2 else _NUMBER.findall(text)[-1:]
    return float(found[0].replace(",", "")) if found else None


class FinalAnswer(OfEachText):
    """Grade-school mathematics: the number that the answer ends with is the reference's."""

    def per_example(self, answers: Answers) -> Floats:
        pairs = zip(answers.predicted, answers.gold, strict=True)
        values = [(final_number(str(text)), final_number(str(gold))) for text, gold in pairs]
        return np.array([float(given is not None and given == right) for given, right in values])


class FinalAnswerGiven(OfEachText):
    def per_example(self, answers: Answers) -> Floats:
        return np.array([float(final_number(str(text)) is not None) for text in answers.predicted])


def distractors(text: str) -> list[str]:
    """The options in ``A <sep> B <sep> C``, normalised and in small letters; empty ones are none."""
    parts = (normalised(part).lower() for part in text.split("<sep>"))
    return [part for part in parts if part]


class DistractorsDistinct(OfEachText):
    def per_example(self, answers: Answers) -> Floats:
        wanted = [max(1, len(distractors(str(gold)))) for gold in answers.gold]
        written = [len(set(distractors(str(text)))) for text in answers.predicted]
        return np.array([min(1.0, have / want) for have, want in zip(written, wanted, strict=True)])


class DistractorsComplete(OfEachText):
    def per_example(self, answers: Answers) -> Floats:
        pairs = zip(answers.predicted, answers.gold, strict=True)
        return np.array([float(len(distractors(str(text))) == len(distractors(str(gold)))) for text, gold in pairs])


class DistractorsEqualAnswer(OfEachText):
    """The right answer is the first of a row's texts; undefined where the rows are not known."""

    higher_is_better = False

    def per_example(self, answers: Answers) -> Floats:
        if answers.examples is None:
            return np.full(len(answers.gold), math.nan)
        pairs = zip(answers.predicted, answers.examples, strict=True)
        return np.array([float(normalised(row.texts[0]).lower() in distractors(str(text))) for text, row in pairs])


plugins = (
    Bleu("bleu", "BLEU over all texts, 0 to 100 (sacrebleu)"),
    Chrf("chrf", "chrF2 over all texts, 0 to 100 (sacrebleu)"),
    Rouge("rouge1", "ROUGE of single words, F-measure"),
    Rouge("rouge2", "ROUGE of pairs of words, F-measure"),
    Rouge("rougeL", "ROUGE of the longest common sequence, F-measure"),
    ExactMatch("exact_match", "share of texts that equal a reference, white space aside"),
    Unusable(),
    FinalAnswer("final_answer", "share of texts that end with the reference's number"),
    FinalAnswerGiven("final_answer_given", "share of texts that have a number to end with"),
    DistractorsDistinct("distractors_distinct", "different wrong options written, of those asked for"),
    DistractorsComplete("distractors_complete", "share of texts with as many wrong options as asked for"),
    DistractorsEqualAnswer("distractors_equal_answer", "share of texts where a wrong option is the right answer"),
)
