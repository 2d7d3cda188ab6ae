"""Equal tuning: every method gets the same number of trials from its own ranges, judged on the selection rows.

A *cell* is what is tuned on its own: one method on one model, task, and budget of rows and steps. Its search space is
what the study leaves open: the learning rate where it is ``auto`` (the method's own range), and every option that is
given as a list, which without tuning would be a grid. Optuna proposes (a tree-structured Parzen estimator, arXiv
1907.10902) and keeps the history in the study's folder; a trial is a run like any other, except that it never looks
at the report rows. What is proposed depends on the history and the trial's number alone, so an interrupted search goes
on as if it had not been.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptlab.config import Pruner, RunConfig, StudyConfig
from adaptlab.errors import ConfigError
from adaptlab.methods import registry as methods
from adaptlab.metrics import registry as metrics
from adaptlab.runs.files import BusyError
from adaptlab.runs.record import Record, TuningPart
from adaptlab.runs.store import StudyFolder, safe_name
from adaptlab.study.expand import expand
from adaptlab.study.pruning import WHOLE, agreement, optuna_pruner, rounds, shortened
from adaptlab.study.schedule import Outcome

if TYPE_CHECKING:
    import optuna

FOLDER = "tuning"
#: A search proposes in this many rounds, whatever the launcher: what is proposed must not depend on who executes it.
_ROUNDS = 4

Values = dict[str, Any]
#: Has runs done, those that are settled skipped; gives the outcome, and a record for each run it was given, in order.
Do = Callable[[Sequence[RunConfig]], tuple[Outcome, list[Record]]]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, spread evenly by their logarithm. ``default`` is tried first."""

    low: float
    high: float
    default: float


@dataclass(frozen=True, slots=True)
class Choices:
    """One of ``values``, which JSON can write."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """What is tuned on its own.

    Attributes:
        label: how tables call it: the user's word, or the method's name.
        runs: the cell's runs without tuning, one for each combination of choices.
        space: what is open, by name.
    """

    label: str
    runs: tuple[RunConfig, ...]
    space: Mapping[str, Range | Choices]

    @property
    def key(self) -> str:
        """A hash of the cell, for file names."""
        content = [run.model_dump_json(exclude={"seed"}) for run in self.runs]
        return hashlib.sha256(json.dumps([self.label, content]).encode()).hexdigest()[:12]

    @property
    def seed(self) -> int:
        """The search's seed: from what is open alone, so that a model in another folder is searched alike."""
        content = [self.label, *(f"{name}: {self.space[name]}" for name in sorted(self.space))]
        return int(hashlib.sha256(json.dumps(content).encode()).hexdigest()[:7], 16)

    def run(self, values: Values, *, seed: int, report: bool, share: int = WHOLE) -> RunConfig:
        """The run with these values, trained for ``share`` of ``WHOLE``; a trial does not ``report``."""
        open_ = {name: values[name] for name, part in self.space.items() if isinstance(part, Choices)}
        (run,) = (run for run in self.runs if {name: _facets(run)[name] for name in open_} == open_)
        rate = values.get("learning_rate", run.training.learning_rate)
        return run.model_copy(
            update={
                "seed": seed,
                "report": report,
                "method": run.method.model_copy(update={"label": self.label}),
                "training": shortened(run.training.model_copy(update={"learning_rate": rate}), share),
            }
        )


def cells(study: StudyConfig) -> list[Cell]:
    """The cells of ``study``.

    Raises:
        ConfigError: two entries would be tuned under one label, or a cell leaves nothing open.
    """
    labels = [entry.label or entry.name for entry in study.methods]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"--tune: give every method a label of its own; there are several called {', '.join(twice)}.")
    found: dict[tuple[str, str], list[RunConfig]] = {}
    for entry, label in zip(study.methods, labels, strict=True):
        for run in expand(study.model_copy(update={"methods": (entry,), "seeds": study.seeds[:1]})):
            found.setdefault((label, _fixed(run)), []).append(run)
    made = [Cell(label, tuple(runs), _space(runs)) for (label, _), runs in found.items()]
    if closed := sorted({cell.label for cell in made if not cell.space}):
        raise ConfigError(
            f"--tune has nothing to choose for {', '.join(closed)}: leave --learning-rate auto, or give an option "
            f"several values."
        )
    return made


@dataclass
class Search:
    """The search of one cell: proposes, is told, and knows the best.

    Args:
        folder: where the history is kept, ``<study>/tuning``.
        trials: how many there are to be.
        pruner: ends some of them early.
    """

    cell: Cell
    folder: Path
    trials: int
    pruner: Pruner = "none"
    _study: optuna.Study = field(init=False)
    _waiting: dict[int, optuna.Trial] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        optuna = _optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{safe_name(self.cell.label)}-{self.cell.key}"
        storage = JournalStorage(JournalFileBackend(str(self.folder / f"{name}.jsonl")))
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            pruner=optuna_pruner(self.pruner, self.trials),
            load_if_exists=True,
        )
        for trial in self._all():
            if not trial.state.is_finished():  # proposed by a process that ended before its run did
                self._waiting[trial.number] = optuna.Trial(self._study, trial._trial_id)

    def propose(self) -> list[tuple[int, Values]]:
        """The next round: trials by number, those still unanswered first. Empty once all are done."""
        while len(self._waiting) < math.ceil(self.trials / _ROUNDS) and len(self._all()) < self.trials:
            trial = self._ask()
            self._waiting[trial.number] = trial
        return [(number, self._decoded(trial.params)) for number, trial in sorted(self._waiting.items())]

    def tell(self, number: int, record: Record, share: int = WHOLE) -> bool:
        """What became of a trial in a training of ``share`` of ``WHOLE``; whether it is to be trained for longer."""
        from optuna.trial import TrialState

        trial, score = self._waiting[number], selection_score(record)
        trial.set_user_attr("run", record.name)
        trial.set_user_attr(f"trained-{share}", [
            score, record.training.get("steps"), record.cost.train_seconds, record.cost.train_flops
        ])  # fmt: skip
        if score is not None and share != WHOLE:
            trial.report(score, share)
            if not trial.should_prune():
                return True
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, score, state=TrialState.FAIL if score is None else TrialState.COMPLETE)
        del self._waiting[number]
        return False

    @property
    def best(self) -> Values | None:
        """The values of the best trial (between equals, the first); ``None`` if none has finished."""
        done = [trial for trial in self._all() if _is_whole(trial)]
        return self._decoded(max(done, key=lambda trial: (trial.value, -trial.number)).params) if done else None

    def part(self) -> TuningPart:
        """What was chosen and what the search cost, for the records of the final runs."""
        trials = self._all()
        trained = [_trained(trial) for trial in trials]
        every = [one for own in trained for one in own.values()]
        part = TuningPart(
            trials=len(trials),
            chosen=self.best or {},
            scores=[trial.value if _is_whole(trial) else None for trial in trials],
            train_seconds=_total(seconds for _, _, seconds, _ in every),
            train_flops=_total(flops for _, _, _, flops in every),
        )
        if self.pruner == "none":
            return part
        steps, whole = [s for _, s, _, _ in every if s is not None], [s for own in trained for s in _whole_steps(own)]
        short = [{share: one[0] for share, one in own.items() if one[0] is not None} for own in trained]
        return part.model_copy(
            update={
                "pruner": self.pruner,
                "pruned": sum(trial.state.name == "PRUNED" for trial in trials),
                "short_scores": [own.get(1) for own in short],
                "steps": sum(steps),
                "steps_unpruned": max(whole) * len(trials) if whole else None,
                "agreement": agreement(short),
            }
        )

    def _all(self) -> list[optuna.trial.FrozenTrial]:
        trials: list[optuna.trial.FrozenTrial] = self._study.get_trials(deepcopy=False)
        return trials

    def _ask(self) -> optuna.Trial:
        from optuna.samplers import TPESampler

        number = len(self._all())
        if number == 0:
            default = {name: part.default for name, part in self.cell.space.items() if isinstance(part, Range)}
            self._study.enqueue_trial(default)
        seed = self.cell.seed + number
        self._study.sampler = TPESampler(seed=seed, multivariate=True, n_startup_trials=max(2, self.trials // 3))
        trial = self._study.ask()
        for name, part in self.cell.space.items():
            if isinstance(part, Range):
                trial.suggest_float(name, part.low, part.high, log=True)
            else:
                trial.suggest_categorical(name, [json.dumps(value) for value in part.values])
        return trial

    def _decoded(self, parameters: Mapping[str, Any]) -> Values:
        choices = {name for name, part in self.cell.space.items() if isinstance(part, Choices)}
        return {
            name: json.loads(value) if name in choices else float(f"{value:.3g}") for name, value in parameters.items()
        }


def _is_whole(trial: optuna.trial.FrozenTrial) -> bool:
    return bool(trial.state.name == "COMPLETE")


def _trained(trial: optuna.trial.FrozenTrial) -> dict[int, list[float | None]]:
    """By the length of each of a trial's trainings: selection score, steps, seconds, FLOPs."""
    found = {name.removeprefix("trained-"): value for name, value in trial.user_attrs.items() if "trained-" in name}
    return {int(share): value for share, value in found.items()}


def _whole_steps(trained: Mapping[int, list[float | None]]) -> list[float]:
    """Steps of a trial's training at full length, if it came to that."""
    steps = trained.get(WHOLE, [None, None])[1]
    return [] if steps is None else [steps]


def tune(study: StudyConfig, folder: StudyFolder, do: Do) -> Outcome:
    """Search every cell with the study's number of trials, then run its seeds with the best values.

    The final runs' records say what was chosen, and what the search cost.
    """
    assert study.tune is not None
    seed = study.seeds[0]
    searches = [Search(cell, folder.path / FOLDER, study.tune, study.pruner) for cell in cells(study)]
    while proposed := [(search, number, values) for search in searches for number, values in search.propose()]:
        for share in rounds(study.pruner):
            runs = [search.cell.run(values, seed=seed, report=False, share=share) for search, _, values in proposed]
            _, records = do(runs)
            heard = zip(proposed, records, strict=True)
            proposed = [each for each, record in heard if each[0].tell(each[1], record, share)]
    finals = [(search, seed) for search in searches if search.best is not None for seed in study.seeds]
    outcome, records = do([search.cell.run(search.best or {}, seed=seed, report=True) for search, seed in finals])
    for (search, _), record in zip(finals, records, strict=True):
        _note(folder, record, search.part())
    return outcome


def _note(folder: StudyFolder, record: Record, part: TuningPart) -> None:
    if record.tuning != part:
        record.tuning = part
        run = folder.run(record.name)
        with contextlib.suppress(BusyError), run.lock():
            run.write_record(record)


def selection_score(record: Record) -> float | None:
    """The selection score, higher is better; ``None`` for a run that did not finish."""
    value = record.training.get("select_score")
    if record.status != "finished" or value is None:
        return None
    return float(value) if metrics.get(record.training["select_metric"]).higher_is_better else -float(value)


def _facets(run: RunConfig) -> Values:
    """In what two runs of a cell may differ, as JSON would give it back."""
    method = run.method
    own = {**method.options, "targets": method.targets, "head": method.head}
    found: Values = json.loads(json.dumps({**own, "learning_rate": run.training.learning_rate}))
    return found


def _space(runs: Sequence[RunConfig]) -> dict[str, Range | Choices]:
    facets = [_facets(run) for run in runs]
    space: dict[str, Range | Choices] = {}
    for name in dict.fromkeys(key for facet in facets for key in facet):
        values = list(_distinct(facet.get(name) for facet in facets))
        if name == "learning_rate" and values == ["auto"]:
            rates = methods.get(runs[0].method.name).learning_rates
            space[name] = Range(rates.low, rates.high, rates.default)
        elif len(values) > 1:
            space[name] = Choices(tuple(values))
    return space


def _total(values: Iterable[float | None]) -> float | None:
    """The sum, ``None`` if one of them is not known, or none is there."""
    known = list(values)
    return None if None in known or not known else sum(value for value in known if value is not None)


def _distinct(values: Iterator[Any]) -> Iterator[Any]:
    seen = set()
    for value in values:
        if (text := json.dumps(value)) not in seen:
            seen.add(text)
            yield value


def _fixed(run: RunConfig) -> str:
    """All that the runs of a cell have in common."""
    return run.model_copy(
        update={
            "seed": 0,
            "method": run.method.model_copy(update={"label": "", "options": {}, "targets": None, "head": "trained"}),
            "training": run.training.model_copy(update={"learning_rate": "auto"}),
        }
    ).model_dump_json()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("--tune needs optuna: pip install 'adaptlab[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
