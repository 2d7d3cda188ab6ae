"""Who is best, who is tied with it, and on what grounds: one comparison for each task, model and condition.

The model at hand of a method, which claims about trained models are of, is its best run by the score on the *selection*
rows, so that nobody is chosen by what is then tested.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from adaptlab.metrics import registry
from adaptlab.report.comparison import ALPHA, Claim, Comparison, Contender, Pair, Power, Standing
from adaptlab.report.costs import costs_of
from adaptlab.report.evidence import NoScores, RowScores, only_answer, primary_answers, row_scores, score_of
from adaptlab.report.power import detectable_difference, items_needed, seeds_needed
from adaptlab.report.resampling import Bootstrapped, bootstrap_difference, bootstrapped
from adaptlab.report.select import RunRow
from adaptlab.report.significance import (
    MethodDifference,
    MethodMean,
    NoClaim,
    compare_methods,
    compare_models,
    holm,
    holm_of_claims,
    mean_of_method,
    mean_over_tasks,
    tied_with_best,
)
from adaptlab.report.statistics import AcrossTasks, Cell, Setting, across_tasks, cells

Floats = NDArray[np.float64]


def compare(rows: Sequence[RunRow]) -> list[Comparison]:
    """The comparisons of ``rows``, those over several tasks last."""
    groups: dict[tuple[str, str, Setting], list[Cell]] = defaultdict(list)
    for cell in cells(rows):
        groups[cell.task, cell.model, cell.condition].append(cell)
    made = [_Evidence(group) for group in groups.values()]
    found = [evidence.comparison() for evidence in made]
    over: dict[tuple[str, Setting], list[_Evidence]] = defaultdict(list)
    for evidence in made:
        over[evidence.cells[0].model, evidence.cells[0].condition].append(evidence)
    return found + [comparison for parts in over.values() if (comparison := _over_tasks(parts)) is not None]


class _Evidence:
    """The cells of one comparison, with what their runs answered."""

    def __init__(self, found: Sequence[Cell]) -> None:
        self.cells = list(found)
        self.runs = {run.id: row_scores(run) for cell in found for run in cell.finished}
        self.scores = {cell.name: _RowTable.of(cell, self.runs) for cell in found}
        self.claims: dict[tuple[str, str], MethodDifference | NoClaim] = {
            (a, b): _methods(self.scores[a], self.scores[b]) for a, b in combinations(self.means, 2)
        }

    @property
    def means(self) -> dict[str, float]:
        """The cells that have a mean."""
        return {cell.name: cell.score.mean for cell in self.cells if cell.score and math.isfinite(cell.score.mean)}

    @property
    def higher_is_better(self) -> bool:
        return all(cell.higher_is_better for cell in self.cells)

    def comparison(self) -> Comparison:
        first = self.cells[0]
        contenders = [self._contender(cell) for cell in self.cells]
        rows = {table.rows for table in self.scores.values() if table.rows is not None}
        sets = {run.primary.evaluation_set for cell in self.cells for run in cell.runs if run.primary}
        ranked = _ranked(contenders, self.claims, self.higher_is_better)
        return Comparison(
            task=first.task,
            tasks=(first.task,),
            model=first.model,
            condition=first.condition,
            metric=next((cell.metric for cell in self.cells if cell.metric), None),
            evaluation_set=sets.pop() if len(sets) == 1 else None,
            higher_is_better=self.higher_is_better,
            rows=rows.pop() if len(rows) == 1 else None,
            contenders=ranked,
            pairs=_pairs(ranked, self.claims, _models(self.cells, self.runs), self.scores),
        )

    def _contender(self, cell: Cell) -> Contender:
        at_hand = model_at_hand(cell)
        return Contender(
            name=cell.name,
            method=cell.method,
            method_name=cell.runs[0].method_name,
            setting=cell.setting,
            score=cell.score,
            interval=self.scores[cell.name].interval,
            runs=len(cell.runs),
            finished=len(cell.finished),
            statuses=_statuses(cell.runs),
            trainable=cell.trainable,
            head=cell.head,
            total=cell.total,
            costs=costs_of(cell.runs),
            at_hand=at_hand.name if at_hand else None,
            one_answer=_one_answers(cell.finished),
        )


def _one_answers(runs: Sequence[RunRow]) -> dict[str, int] | None:
    known = [answer for run in runs if not isinstance(answer := only_answer(run), NoScores)]
    return dict(Counter(answer for answer in known if answer is not None)) if known else None


@dataclass(frozen=True, slots=True)
class _RowTable:
    """A cell's scores as ``[replicates, rows]``, or why there is no such table."""

    values: Floats | None
    digest: str | None
    replicates: tuple[int, ...] | None  # data seeds, where the rows that train were drawn several times
    reason: str | None

    @classmethod
    def of(cls, cell: Cell, scores_of: Mapping[str, RowScores | NoScores]) -> _RowTable:
        found = [(run, scores_of[run.id]) for run in cell.finished]
        scores = [(run, score) for run, score in found if isinstance(score, RowScores)]
        lacking = next((score.reason for _, score in found if isinstance(score, NoScores)), None)
        if lacking is not None or not scores:
            return cls(None, None, None, lacking or "no run has finished")
        if len({score.rows for _, score in scores}) > 1:
            return cls(None, None, None, "its runs answered different rows")
        by_draw: dict[int, list[Floats]] = defaultdict(list)
        for run, score in scores:
            by_draw[run.data_seed].append(score.values)
        digest = scores[0][1].rows
        if len(by_draw) == 1:
            return cls(np.stack([score.values for _, score in scores]), digest, None, None)
        # Runs on the same draw of training rows are not independent: a draw counts once, with the mean of its seeds.
        draws = sorted(by_draw)
        return cls(np.stack([np.mean(by_draw[draw], axis=0) for draw in draws]), digest, tuple(draws), None)

    @property
    def rows(self) -> int | None:
        return None if self.values is None else self.values.shape[1]

    @property
    def interval(self) -> tuple[float, float] | None:
        mean = None if self.values is None else mean_of_method(self.values)
        return mean.interval if isinstance(mean, MethodMean) else None


def _methods(first: _RowTable, second: _RowTable) -> MethodDifference | NoClaim:
    if first.values is None or second.values is None:
        reason = first.reason if first.values is None else second.reason
        return NoClaim(reason or "", math.nan)
    if first.digest != second.digest:
        return NoClaim("they answered different rows", float(first.values.mean() - second.values.mean()))
    paired = first.replicates is not None and first.replicates == second.replicates
    return compare_methods(first.values, second.values, paired=paired)


def model_at_hand(cell: Cell) -> RunRow | None:
    """The finished run with the best score on the selection rows; without such scores, the first."""
    finished = [run for run in cell.finished if run.score is not None and math.isfinite(run.score)]
    sign = 1 if cell.higher_is_better else -1

    def selected(run: RunRow) -> float:
        score = run.training.get("select_score")
        return sign * float(score) if isinstance(score, (int, float)) and math.isfinite(score) else -math.inf

    return max(finished, key=selected, default=None)


def _models(found: Sequence[Cell], scores_of: Mapping[str, RowScores | NoScores]) -> dict[tuple[str, str], Claim]:
    """The claim about the trained models of each pair."""
    chosen = {cell.name: run for cell in found if (run := model_at_hand(cell))}
    scores = {name: scores_of[run.id] for name, run in chosen.items()}
    whole = {
        name: _resampled(chosen[name])
        for name, score in scores.items()
        if isinstance(score, RowScores) and not score.own
    }
    claims = {}
    for a, b in combinations(chosen, 2):
        observed = (chosen[a].score or 0.0) - (chosen[b].score or 0.0)
        subjects = (chosen[a].name, chosen[b].name)
        claims[a, b] = replace(_model_claim(scores[a], scores[b], whole.get(a), whole.get(b)), subjects=subjects)
        if claims[a, b].difference is None:
            claims[a, b] = replace(claims[a, b], difference=observed)
    tested = {pair: claim.p for pair, claim in claims.items() if claim.p is not None}
    for pair, adjusted in zip(tested, holm(list(tested.values())), strict=True):
        claims[pair] = replace(claims[pair], adjusted_p=adjusted)
    return claims


def _resampled(run: RunRow) -> Bootstrapped:
    """The run's metric on resamples of its rows, the same for every run that answered as many."""
    assert run.primary is not None  # it has row scores
    metric = registry.get(run.primary.name)
    found = primary_answers(run)
    assert not isinstance(found, NoScores)
    return bootstrapped(score_of(metric, found[0]), len(found[0].gold))


def _model_claim(
    first: RowScores | NoScores, second: RowScores | NoScores, a: Bootstrapped | None, b: Bootstrapped | None
) -> Claim:
    for scores in (first, second):
        if isinstance(scores, NoScores):
            return Claim(reason=scores.reason)
    assert isinstance(first, RowScores)
    assert isinstance(second, RowScores)
    if first.rows != second.rows:
        return Claim(reason="they answered different rows")
    if a is None or b is None:
        tested = compare_models(first.values, second.values)
        return Claim(tested.difference, tested.interval, tested.p, test=tested.test)
    difference = bootstrap_difference(a, b)
    if math.isnan(difference.p):
        return Claim(difference.difference, reason="the metric is undefined on every resample of the rows")
    return Claim(difference.difference, difference.interval, difference.p, test="paired bootstrap")


def _ranked(
    contenders: Sequence[Contender],
    claims: Mapping[tuple[str, str], MethodDifference | NoClaim],
    higher_is_better: bool,
) -> tuple[Contender, ...]:
    """Best mean first, each with its standing; those without a mean last."""
    means = {c.name: c.score.mean for c in contenders if c.score is not None and math.isfinite(c.score.mean)}
    if not means:
        return tuple(replace(c, reason="no run has finished") for c in contenders)
    ties = tied_with_best(means, claims, higher_is_better=higher_is_better, alpha=ALPHA)
    standings: dict[str, Standing] = dict.fromkeys(ties.tied, "tied")
    standings.update(dict.fromkeys(ties.worse, "worse"))
    standings[ties.best] = "best"
    stood = [
        replace(c, standing=standings.get(c.name, "open"), reason=ties.open.get(c.name, _no_mean(c, means)))
        for c in contenders
    ]
    sign = -1 if higher_is_better else 1
    return tuple(sorted(stood, key=lambda c: (c.name not in means, sign * means.get(c.name, 0.0), c.name)))


def _no_mean(contender: Contender, means: Mapping[str, float]) -> str | None:
    if contender.name in means:
        return None
    return "a score is not a finite number" if contender.score is not None else "no run has finished"


def _pairs(
    ranked: Sequence[Contender],
    claims: Mapping[tuple[str, str], MethodDifference | NoClaim],
    models: Mapping[tuple[str, str], Claim],
    tables: Mapping[str, _RowTable],
) -> tuple[Pair, ...]:
    adjusted = holm_of_claims(claims)
    best = next((c.name for c in ranked if c.standing == "best"), None)
    return tuple(
        Pair(
            a,
            b,
            _said(claim, adjusted.get((a, b))),
            models.get((a, b), Claim(reason="there is no model at hand")),
            _power(claim, tables[a], tables[b]) if best in (a, b) else None,
        )
        for (a, b), claim in claims.items()
    )


def _said(claim: MethodDifference | NoClaim, adjusted: float | None) -> Claim:
    observed = None if math.isnan(claim.difference) else claim.difference
    if isinstance(claim, NoClaim):
        return Claim(observed, reason=claim.reason)
    return Claim(observed, claim.interval, claim.p, adjusted, "t over seeds and rows")


def _power(claim: MethodDifference | NoClaim, first: _RowTable, second: _RowTable) -> Power | None:
    if isinstance(claim, NoClaim) or claim.components is None or first.values is None or second.values is None:
        return None
    seeds, rows = min(len(first.values), len(second.values)), first.values.shape[1]
    return Power(
        seeds=seeds,
        rows=rows,
        detectable=detectable_difference(claim.components, seeds, rows),
        seeds_needed=seeds_needed(claim.difference, claim.components, rows) if claim.difference else None,
        rows_needed=items_needed(claim.difference, claim.components, seeds) if claim.difference else None,
    )


def _over_tasks(parts: Sequence[_Evidence]) -> Comparison | None:
    """The mean over the tasks of ``parts``; ``None`` for one task, or where no mean can be formed."""
    if len(parts) < 2 or len({part.higher_is_better for part in parts}) > 1:
        return None
    runs = [run for part in parts for cell in part.cells for run in cell.runs]
    variants = {next(iter(v.cells.values())).name: v for v in across_tasks(runs)}
    contenders = [_across(name, variant) for name, variant in variants.items()]
    means = [c.name for c in contenders if c.score is not None and math.isfinite(c.score.mean)]
    if not means:
        return None
    claims = {(a, b): mean_over_tasks([_claim_on(part, a, b) for part in parts]) for a, b in combinations(means, 2)}
    higher, first = parts[0].higher_is_better, parts[0].cells[0]
    ranked = _ranked(contenders, claims, higher)
    metrics = sorted({cell.metric for part in parts for cell in part.cells if cell.metric})
    adjusted = holm_of_claims(claims)
    no_model = Claim(reason="a model is of one task")
    return Comparison(
        task=None,
        tasks=tuple(part.cells[0].task for part in parts),
        model=first.model,
        condition=first.condition,
        metric=" and ".join(metrics) or None,
        evaluation_set=None,
        higher_is_better=higher,
        rows=None,
        contenders=ranked,
        pairs=tuple(Pair(a, b, _said(claim, adjusted.get((a, b))), no_model) for (a, b), claim in claims.items()),
    )


def _claim_on(part: _Evidence, a: str, b: str) -> MethodDifference | NoClaim:
    if (a, b) in part.claims:
        return part.claims[a, b]
    claim = part.claims.get((b, a), NoClaim("one of them has no score", math.nan))
    if isinstance(claim, NoClaim):
        return replace(claim, difference=-claim.difference)
    low, high = claim.interval
    return replace(claim, difference=-claim.difference, t=-claim.t, interval=(-high, -low))


def _across(name: str, variant: AcrossTasks) -> Contender:
    found = list(variant.cells.values())
    counts = {which: {getattr(cell, which) for cell in found} - {None} for which in ("trainable", "head", "total")}
    return Contender(
        name=name,
        method=variant.method,
        method_name=found[0].runs[0].method_name,
        setting=variant.setting,
        score=variant.mean,
        interval=None,
        runs=len(variant.runs),
        finished=sum(run.status == "finished" for run in variant.runs),
        statuses=_statuses(variant.runs),
        trainable=max(counts["trainable"], default=None),
        head=max(counts["head"], default=None),
        total=max(counts["total"], default=None),
        costs=costs_of(variant.runs),
        missing=tuple((task, seed) for task, (seed, _) in variant.missing),
    )


def _statuses(runs: Sequence[RunRow]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for run in runs:
        found[run.status] += 1
    return dict(sorted(found.items()))
