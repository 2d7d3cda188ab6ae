"""The answer in sentences: who is best, who is tied with it for less, and what limits that.

Sentences say no more than the comparison behind them (:mod:`adaptlab.report.comparison`): "tied" and "worse" only where
the methods were tested, over seeds and rows; else means and how the two trained models at hand compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adaptlab.config import BUDGETS
from adaptlab.report.comparison import Comparison, Contender
from adaptlab.report.costs import CostFigure
from adaptlab.report.select import RunRow, Selection
from adaptlab.report.significance import FEWEST_SEEDS
from adaptlab.report.statistics import cells, label_of
from adaptlab.report.summary import summary
from adaptlab.report.tables import number_text, score_text, status_counts


@dataclass(frozen=True, slots=True)
class Answer:
    """``lead`` is the first thing to read; ``details`` say it of each task and more exactly; ``doubts`` limit it."""

    lead: str
    details: tuple[str, ...]
    doubts: tuple[str, ...]


def answer(selection: Selection) -> Answer:
    """What the records say about the question which method to take."""
    doubts = _doubts(selection)
    if not selection.rows:
        return Answer("No run of this study has left a record yet.", (), doubts)
    found = summary(selection)
    tasks = [comparison for comparison in found.of_tasks if comparison.best is not None]
    over = [comparison for comparison in found.over_tasks if comparison.best is not None]
    if not tasks:
        return Answer("No run has finished with a score yet.", (), doubts)
    named = _Names(tasks)
    if len(tasks) == 1:
        lead, *details = _sentences(tasks[0], named)
        return Answer(lead, tuple(details), doubts)
    each = [" ".join(_sentences(comparison, named)) for comparison in tasks]
    whole = [" ".join(_sentences(comparison, named)) for comparison in over]
    if len(over) == 1:
        return Answer(whole[0], tuple(each), doubts)
    return Answer(_highest(over or tasks, named), (*whole, *each), doubts)


class _Names:
    """What has to be said of a comparison so that it is not taken for another."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.models = len({comparison.model for comparison in comparisons}) > 1

    def place(self, comparison: Comparison) -> str:
        """``sst2``, ``2 tasks with bert-base`` or ``sst2, train examples 100``."""
        task = comparison.task if comparison.task is not None else f"{len(comparison.tasks)} tasks"
        with_model = f"{task} with {comparison.model}" if self.models else task
        return label_of(with_model, comparison.condition)


def spoken(contender: Contender) -> str:
    """A contender's name inside a sentence."""
    return "full fine-tuning" if contender.name == "full" else contender.name


def _sentences(comparison: Comparison, named: _Names) -> list[str]:
    """The lead about one comparison, then what makes it exact."""
    best, scored = comparison.best, [c for c in comparison.contenders if _has_mean(c)]
    assert best is not None  # the caller chose those that have one
    where, score = named.place(comparison), _score(best, comparison)
    preposition = "over" if comparison.task is None else "on"
    if len(scored) == 1:
        return [f"{_capital(spoken(best))} is the only method with a score {preposition} {where}: {score}."]
    if all(contender.standing in ("best", "open") for contender in scored):
        return _untested(comparison, best, scored, f"{preposition} {where}")
    return _tested(comparison, best, scored, f"{preposition} {where}")


def _tested(comparison: Comparison, best: Contender, scored: Sequence[Contender], where: str) -> list[str]:
    tied = [contender for contender in scored if contender.standing == "tied"]
    worse = [contender for contender in scored if contender.standing == "worse"]
    unknown = [contender for contender in scored if contender.standing == "open"]
    other = _close_for_less(best, tied) if tied else None
    if other is None:
        rank = "has the best mean" if unknown else "is best"
        lead = f"{_capital(spoken(best))} {rank} {where}: {_score(best, comparison)}."
    elif _expense(other) < _expense(best):
        scores = f"{_metric(comparison)}{number_text(_mean(other))} against {_score_text(best)}"
        tie = f"is tied with {spoken(best)} {where}{_at(_share(other, best))}"
        lead = f"{_capital(spoken(other))} {tie}: {scores}{_interval(comparison, best, other)}."
    else:
        other = next((contender for contender in tied if contender.method_name == "full"), other)
        beside = f"tied with {spoken(other)}{_at(_share(best, other))}{_interval(comparison, best, other)}"
        lead = f"{_capital(spoken(best))} scores best {where}: {_score(best, comparison)}, {beside}."
    said = [lead]
    rest = [contender for contender in tied if contender is not other]
    if rest:
        said.append(f"Also tied with the best: {_list(rest)}.")
    if worse:
        said.append(f"Worse than the best: {_list(worse)}.")
    if unknown:
        said.append(f"Not told apart from the best, as {unknown[0].reason}: {_list(unknown)}.")
    return [*said, *_power(comparison, best, other)]


def _interval(comparison: Comparison, best: Contender, other: Contender) -> str:
    """What is known of the difference of two that are tied."""
    pair = comparison.pair(best.name, other.name)
    if pair is None or pair.methods.interval is None:
        return ""
    sign = (1 if pair.first == best.name else -1) * (1 if comparison.higher_is_better else -1)
    low, high = sorted(sign * end for end in pair.methods.interval)
    return f" ({spoken(best)} ahead by {number_text(low)} to {number_text(high)}, 95 % interval)"


def _power(comparison: Comparison, best: Contender, other: Contender | None) -> list[str]:
    """What "tied" may hide: the difference that such a study would find."""
    pair = None if other is None else comparison.pair(best.name, other.name)
    if pair is None or pair.power is None:
        return []
    power = pair.power
    if power.detectable == 0:  # e.g. every run gives every row the same answer
        return ["No seed and no row told them apart, so how small a difference would be found is not known."]
    text = (
        f"Tied is not equal: {power.seeds} seeds and {power.rows:,} rows find a difference of "
        f"{number_text(power.detectable)} in 80 % of studies"
    )
    if power.seeds_needed is not None and power.seeds_needed > power.seeds:
        text += f"; the {_gap_text(pair.methods.difference)} seen here would take {power.seeds_needed:,} seeds of each"
    elif power.seeds_needed is None and pair.methods.difference:
        gap = _gap_text(pair.methods.difference)
        text += f"; the {gap} seen here cannot be confirmed on so few rows, whatever the number of seeds"
    return [f"{text}."]


def _untested(comparison: Comparison, best: Contender, scored: Sequence[Contender], where: str) -> list[str]:
    """Means, and what can be said of the trained models at hand."""
    others = [contender for contender in scored if contender is not best]
    beside = _close_for_less(best, others)
    lead = f"{_capital(spoken(best))} has the best mean {where}: {_score(best, comparison)}."
    if best.score is not None and best.score.n == 1:
        lead = f"{_capital(spoken(best))} scores best {where}: {_score(best, comparison)}."
    gap = _mean(best) - _mean(beside)
    level = f"{_gap_text(gap)} behind" if gap else "level with it"
    behind = f"{_capital(spoken(beside))} is {level}{_at(_share(beside, best))}"
    pair = comparison.pair(best.name, beside.name)
    models = None if pair is None else pair.models
    if models is not None and models.adjusted_p is not None:
        rows = f"{comparison.rows:,} rows" if comparison.rows else "rows"
        told = "differ" if models.differ else "cannot be told apart"
        behind += f"; these two trained models {told} on the {rows} ({models.test}, {p_text(models.adjusted_p)})"
    reason = beside.reason or (pair.methods.reason if pair is not None else None)
    about = [f"Nothing is claimed about the methods, as {reason}."] if reason else []
    return [f"{lead} {behind}.", *about]


def _close_for_less(best: Contender, others: Sequence[Contender]) -> Contender:
    """The cheapest within one standard deviation of the best; else whoever comes second."""
    near = [other for other in others if _expense(other) < _expense(best) and _is_near(best, other)]
    return min(near, key=_expense) if near else others[0]


def _is_near(best: Contender, other: Contender) -> bool:
    """No further apart than the larger standard deviation of the two, where both are known."""
    if best.score is None or other.score is None or best.score.std is None or other.score.std is None:
        return False
    return abs(_mean(best) - _mean(other)) <= max(best.score.std, other.score.std)


def _highest(comparisons: Sequence[Comparison], named: _Names) -> str:
    """The lead where several comparisons share no mean."""
    if len({comparison.tasks for comparison in comparisons}) > 1:
        return "Each task has its own answer:"
    sign = 1 if comparisons[0].higher_is_better else -1
    top = max(comparisons, key=lambda comparison: sign * _mean(comparison.best))
    assert top.best is not None  # the caller chose those that have one
    where = f"{'over' if top.task is None else 'on'} {named.place(top)}"
    return (
        f"The best mean of all is that of {spoken(top.best)} {where}: {_score(top.best, top)}. "
        f"Different {'models' if named.models else 'amounts of data'} are not tested against each other; "
        "each has its own answer:"
    )


def _has_mean(contender: Contender) -> bool:
    return contender.score is not None and math.isfinite(contender.score.mean)


def _mean(contender: Contender | None) -> float:
    return contender.score.mean if contender is not None and contender.score is not None else math.nan


def _metric(comparison: Comparison) -> str:
    if comparison.metric is None:
        return ""
    return f"mean {comparison.metric} " if comparison.task is None else f"{comparison.metric} "


def _score(contender: Contender, comparison: Comparison) -> str:
    """``accuracy 0.908 ± 0.010 over 3 seeds``."""
    return f"{_metric(comparison)}{_score_text(contender)}"


def _score_text(contender: Contender) -> str:
    if contender.score is None:
        return "no score"
    seeds = f" over {contender.score.n} seeds" if contender.score.n > 1 else ""
    return f"{score_text(contender.score)}{seeds}"


def _expense(contender: Contender) -> tuple[float, float]:
    """By trained numbers, then by compute."""
    flops = _cost(contender, "train_flops")
    trainable = math.inf if contender.trainable is None else float(contender.trainable)
    return (trainable, flops.mean if flops is not None else math.inf)


def _share(contender: Contender, reference: Contender) -> list[str]:
    """What ``contender`` takes of the costs of ``reference``; only figures that compare."""
    if contender.trainable == contender.head == 0 and reference.trainable:
        return ["no training at all"]
    costs = []
    if contender.trainable == 0 and reference.trainable:
        costs.append("nothing but the head trained")
    elif reference.trainable and contender.trainable is not None:
        costs.append(f"{ratio_text(contender.trainable / reference.trainable)} the parameters")
    for name, words in (("train_flops", "the compute"), ("train_seconds", "the training time")):
        ours, theirs = _cost(contender, name), _cost(reference, name)
        if ours is not None and theirs is not None and ours.machine == theirs.machine and theirs.mean > 0:
            costs.append(f"{ratio_text(ours.mean / theirs.mean)} {words}")
            break
    return costs


def _cost(contender: Contender, name: str) -> CostFigure | None:
    """The figure, where there is one alone: clocks of several machines have no mean."""
    found = [figure for figure in contender.costs if figure.name == name]
    return found[0] if len(found) == 1 else None


def _at(costs: Sequence[str]) -> str:
    return f" at {' and '.join(costs)}" if costs else ""


def ratio_text(share: float) -> str:
    """``0.33 % of``, ``61 % of``, ``3.1 times``."""
    if share > 1.005:
        return f"{share:.3g} times" if share < 1000 else f"{share:,.0f} times"
    percent = 100 * share
    return f"{percent:.0f} % of" if percent >= 10 else f"{percent:.2g} % of"


def p_text(p: float) -> str:
    """Two figures; never 0."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _gap_text(difference: float | None) -> str:
    gap = abs(difference or 0.0)
    return number_text(gap) if gap >= 0.0005 else "less than 0.001"


def _list(contenders: Iterable[Contender]) -> str:
    return ", ".join(spoken(contender) for contender in contenders)


def _capital(text: str) -> str:
    """As a sentence begins: our own words with a capital, labels as they are."""
    return f"F{text[1:]}" if text == "full fine-tuning" else text


def _doubts(selection: Selection) -> tuple[str, ...]:
    rows, doubts = selection.rows, []
    if selection.where:
        shown = f"{len(rows)} of {len(rows) + selection.left_aside}"
        doubts.append(f"Shown are the runs with {selection.where}: {shown}; nothing is said about the others.")
    finished = [row for row in rows if row.status == "finished"]
    if finished and all(len(cell.finished) < 2 for cell in cells(rows)):
        doubts.append(
            "Every method was run with one seed: the spread is unknown, and small differences may be chance; "
            f"{FEWEST_SEEDS} seeds or more allow a claim about methods."
        )
    trained = [row for row in finished if "training.epochs" not in row.idle]
    doubts += [*_unequal(trained), *_equal_budgets(trained)]
    broken = [row for row in rows if row.status not in ("finished", "running")]
    if broken:
        counts = status_counts(broken)
        doubts.append(f"{len(broken)} of {len(rows)} runs did not finish ({counts}); they are in no mean.")
    running = sum(row.status == "running" for row in rows)
    if running:
        doubts.append(f"{running} of {len(rows)} runs had not ended when this page was made.")
    if selection.waiting:
        doubts.append(f"Runs that have not started: {len(selection.waiting)}.")
    count = len(selection.problems)
    if count:
        doubts.append(f"{count} file{'s' if count > 1 else ''} could not be read and stay{'s' * (count == 1)} out.")
    return tuple(doubts)


#: How a budget is said, by its key.
_SPOKEN = {"max_flops": "FLOPs", "max_seconds": "time", "max_tokens": "tokens", "max_bytes": "bytes of text"}


def _equal_budgets(trained: Sequence[RunRow]) -> list[str]:
    """That methods were compared at an equal budget, and so not at equal passes over the data."""
    said = []
    for key, word in _SPOKEN.items():
        amounts: dict[str, set[float | None]] = {}
        passes: dict[str, list[float]] = {}
        for row in trained:
            given = row.given.get("training", {})
            alone = given.get("epochs") is None and given.get("steps") is None
            amounts.setdefault(row.task, set()).add(given.get(key) if alone else None)
            if row.data is not None and row.data.sizes.get("train"):
                share = row.training.get("examples", 0) / row.data.sizes["train"]
                passes.setdefault(row.method, []).append(share)
        equal = {task: amount for task, (amount, *more) in amounts.items() if amount is not None and not more}
        if equal and len(passes) > 1:
            each = ", ".join(f"{number_text(amount)} on {task}" for task, amount in equal.items())
            read = ", ".join(f"{method} {sum(found) / len(found):.3g}" for method, found in passes.items())
            said.append(f"Methods are compared at equal {word} ({each}), not at equal passes over the data: {read}.")
    return said


#: What every method of a fair comparison gets the same of.
_SHARED = ("epochs", "steps", *BUDGETS, "batch_size", "select")


def _unequal(trained: Sequence[RunRow]) -> list[str]:
    """Methods of one task and model that were not trained alike."""
    found = []
    for key in _SHARED:
        by_method: dict[tuple[str, str], dict[str, set[str]]] = {}
        for row in trained:
            methods = by_method.setdefault((row.task, row.model), {})
            methods.setdefault(row.method, set()).add(str(row.given.get("training", {}).get(key)))
        if any(len({frozenset(values) for values in methods.values()}) > 1 for methods in by_method.values()):
            found.append(key.replace("_", " "))
    return [f"The methods were not trained alike: they differ in {' and '.join(found)}."] if found else []
