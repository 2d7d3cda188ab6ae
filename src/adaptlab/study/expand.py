"""A study becomes runs: the product over every axis, each method's options made into variants with telling labels."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

from adaptlab.config import (
    AnsweringConfig,
    HeadMode,
    MethodConfig,
    MethodEntry,
    ModelConfig,
    Quantize,
    RunConfig,
    StudyConfig,
    TaskConfig,
    TrainingConfig,
)
from adaptlab.errors import ConfigError
from adaptlab.methods import registry as methods
from adaptlab.runs.store import safe_name
from adaptlab.study.options import check_entry, filled, settings
from adaptlab.study.wording import Problem

_LONGEST_PART = 60  # characters of a task's or label's name in a folder's name; the id keeps folders apart


#: What a method's entry may say for itself, in place of the study, by the part of a run that it belongs to.
_OF_RUN = ("readout", "objective", "shots")
_OF_ANSWERING = ("teacher", "verbalizer_loss")
_OF_TRAINING = ("optimizer", "schedule")
_ENTRY_SAYS = (*_OF_RUN, *_OF_ANSWERING, *_OF_TRAINING)

#: Whose values say by themselves what they are of.
_PLAIN = ("targets", "readout", "objective", "optimizer", "schedule")

#: What decides whether a run looks at a value: where the study has several of it, an entry that says the value is
#: multiplied by it, so that each variant has a label of its own.
_LOOKED_AT_BY = {"teacher": "objective", "verbalizer_loss": "readout"}

#: What a value is of that not every run looks at.
_IS_OF = {
    **dict.fromkeys(("teacher", "teacher_shots", "temperature"), "--objective context-distillation"),
    **dict.fromkeys(("length_normalization", "calibration"), "--readout verbalizer"),
    **dict.fromkeys(("max_new_tokens", "beams", "stop"), "--readout generate"),
    **dict.fromkeys(("shot_sampling", "shots_per_query"), "demonstrations, and there are none without --shots"),
    "verbalizer_loss": "training with --readout verbalizer",
    "head_learning_rate": "a trained head, which only --readout head has",
}

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run one method. ``label`` is the user's (or empty) until :func:`_labelled` has completed it."""

    name: str
    label: str
    options: dict[str, Any]
    targets: str | tuple[str, ...] | None
    head: HeadMode
    quantize: Quantize | None  # None: as the model says
    learning_rate: float | Literal["auto"]
    said: tuple[tuple[str, Any], ...] = ()  # of _ENTRY_SAYS, what the entry says

    def facts(self, of_study: Facts) -> Facts:
        """Everything in which two variants of a method can differ, in the order in which a label tells it.

        What nobody can tell yet, as the study has several of it, is ``None``, and so is what the variant does not use.
        """
        own = {_short(self.name, key): value for key, value in filled(self.name, self.options).items()}
        of_all = {"targets": self.targets, "head": self.head, "quantize": self.quantize, "lr": self.learning_rate}
        said = of_study | dict(self.said)
        trains, asked = methods.get(self.name).trains, said["readout"]
        if said["objective"] == "supervised":
            said["teacher"] = None
        if not trains or asked not in (None, "verbalizer"):
            said["verbalizer_loss"] = None
        if not trains:
            of_all["lr"] = said["optimizer"] = said["schedule"] = None
        if asked not in (None, "head") and self.head == "frozen":  # a language model has no head
            of_all["head"] = "trained"
        return own | of_all | said

    def part(self, keys: Iterable[str]) -> Facts:
        """What the entry says of ``keys``."""
        return {key: value for key, value in self.said if key in keys}

    def config(self) -> MethodConfig:
        return MethodConfig(
            name=self.name, label=self.label, targets=self.targets, head=self.head, options=self.options
        )


def expand(study: StudyConfig) -> list[RunConfig]:
    """The study's runs, as given (``auto`` is still unresolved), without duplicates; seeds vary fastest.

    Raises:
        ConfigError: methods or options are wrong, or one label stands for two variants; every problem at once.
    """
    problems = check_methods(study)
    if problems:
        raise ConfigError(problem.message for problem in problems)
    axes = {key: _axis(study, key) for key in _ENTRY_SAYS}
    of_study = {key: values[0] if len(values) == 1 else None for key, values in axes.items()}
    variants = _labelled(_without_twins(_variants(study), of_study))
    runs = [
        _run(study, model, task, training, variant, seed, answering)
        for task in _tasks(study)
        for model in study.model
        for answering in _answerings(study)
        for training in _trainings(study)
        for variant in variants
        for seed in study.seeds
    ]
    if any(study.unlabelled_examples) and not any(run.task.unlabelled_examples for run in runs):
        raise ConfigError(
            "--unlabelled-examples are rows without answers, and supervised training learns from answers: use "
            "--objective context-distillation, or leave them out."
        )
    _check_used(study, runs)
    return list({run.model_dump_json(): run for run in runs}.values())


def check_methods(study: StudyConfig) -> list[Problem]:
    """Every problem with the study's methods and their options, with its place. Imports no torch, loads nothing."""
    found = [problem for index, entry in enumerate(study.methods) for problem in check_entry(entry, index)]
    return found or [problem for index, entry in enumerate(study.methods) for problem in _unused(study, entry, index)]


def _unused(study: StudyConfig, entry: MethodEntry, index: int) -> Iterator[Problem]:
    """What ``entry`` says for itself and none of its runs would look at."""
    trains = methods.get(entry.name).trains
    uses = {
        "teacher": "context-distillation" in (entry.objective or study.objective),
        "verbalizer_loss": trains and "verbalizer" in (entry.readout or study.readout),
        "optimizer": trains,
        "schedule": trains,
    }
    for key, used in uses.items():
        if getattr(entry, key) is not None and not used:
            why = _IS_OF.get(key, "training, and this method has none")
            yield Problem(
                ("methods", index, key), f"'{entry.name}.{key}' changes nothing here: it is of {why}; leave it out"
            )


def _check_used(study: StudyConfig, runs: Sequence[RunConfig]) -> None:
    """Refuse what the study says and no run looks at."""
    idle = frozenset.intersection(*(run.idle(trains=methods.get(run.method.name).trains) for run in runs))
    keys = sorted({path.partition(".")[2] for path in idle} & _IS_OF.keys())
    said = [key for key in keys if getattr(study, key) != StudyConfig.model_fields[key].default]
    if said:
        raise ConfigError(
            f"--{key.replace('_', '-')} changes nothing here: it is of {_IS_OF[key]}; leave it out." for key in said
        )


def task_label(task_name: str) -> str:
    """How people and file names call a task: its name, or the stem of the user's file."""
    is_path = "/" in task_name or "." in task_name
    return PurePath(task_name).name.split(".")[0] if is_path else task_name


def run_name(task_name: str, label: str, seed: int, run_id: str) -> str:
    """``<task>-<method label>-s<seed>-<first 8 of the id>``: always one folder name."""
    return f"{safe_name(task_label(task_name))[:_LONGEST_PART]}-{safe_name(label)[:_LONGEST_PART]}-s{seed}-{run_id[:8]}"


def _run(
    study: StudyConfig,
    model: ModelConfig,
    task: TaskConfig,
    training: TrainingConfig,
    variant: Variant,
    seed: int,
    answering: dict[str, Any],
) -> RunConfig:
    rate = {"learning_rate": variant.learning_rate}
    how: AnsweringConfig = answering["answering"]
    said = answering | variant.part(_OF_RUN) | {"answering": how.model_copy(update=variant.part(_OF_ANSWERING))}
    if said["objective"] == "supervised":  # it learns from answers: rows without are for the study's other runs
        task = task.model_copy(update={"unlabelled_examples": 0})
    return RunConfig(
        model=model if variant.quantize is None else model.model_copy(update={"quantize": variant.quantize}),
        task=task,
        method=variant.config(),
        training=training.model_copy(update=rate | variant.part(_OF_TRAINING) | _equal(study, task)),
        seed=seed,
        **said,
    ).without_idle(trains=methods.get(variant.name).trains)


def _equal(study: StudyConfig, task: TaskConfig) -> dict[str, Any]:
    """What makes the budget of all runs of ``task`` equal, once it is known: it ends them, and not their epochs."""
    amount = (study.equal_budgets or {}).get(task_label(task.name))
    return {} if amount is None else {"epochs": None, "steps": None, f"max_{study.equalize}": amount}


def _answerings(study: StudyConfig) -> Iterator[dict[str, Any]]:
    """The product over how answers are read: the readout, the objective, the shots, and the keys of AnsweringConfig."""
    keys = [*_OF_RUN, *AnsweringConfig.model_fields]
    axes = ((study.stop,) if key == "stop" else _axis(study, key) for key in keys)  # a list of strings is one value
    for values in itertools.product(*axes):
        given = dict(zip(keys, values, strict=True))
        how = AnsweringConfig(**{key: given.pop(key) for key in AnsweringConfig.model_fields})
        yield {**given, "answering": how}


def _tasks(study: StudyConfig) -> Iterator[TaskConfig]:
    for entry in study.task:
        for prompt, train_examples, unlabelled, data_seed, max_length in itertools.product(
            entry.prompt or (None,), study.train_examples, study.unlabelled_examples, study.data_seed, study.max_length
        ):
            yield TaskConfig(
                name=entry.name,
                train_examples=train_examples,
                select_examples=study.select_examples,
                eval_examples=study.eval_examples,
                data_seed=data_seed,
                text_columns=entry.text_columns,
                label_column=entry.label_column,
                explanation_column=entry.explanation_column,
                delimiter=entry.delimiter,
                max_length=max_length,
                prompt=prompt,
                prompts=entry.prompts,
                also_evaluate=entry.also_evaluate,
                balanced=study.balanced,
                unlabelled_examples=unlabelled,
            )


def _trainings(study: StudyConfig) -> Iterator[TrainingConfig]:
    """The product over every key that a study shares with ``TrainingConfig``; the rate belongs to the variants."""
    axes = {key: _axis(study, key) for key in TrainingConfig.model_fields if key != "learning_rate"}
    if not study.has_end:
        axes["epochs"] = (None,)
    for values in itertools.product(*axes.values()):
        yield TrainingConfig(**dict(zip(axes, values, strict=True)))


def _axis(study: StudyConfig, key: str) -> tuple[Any, ...]:
    value = getattr(study, key)
    if value is None and StudyConfig.model_fields[key].default is None:  # nobody said anything
        value = TrainingConfig.model_fields[key].default
    return value if isinstance(value, tuple) else (value,)


def _variants(study: StudyConfig) -> Iterator[Variant]:
    for entry in study.methods:
        said = {key: getattr(entry, key) for key in _ENTRY_SAYS if getattr(entry, key) is not None}
        for key, decides in _LOOKED_AT_BY.items():
            if key in said and len(getattr(study, decides)) > 1:
                said.setdefault(decides, getattr(study, decides))
        for targets, head, quantize, options, rate, values in itertools.product(
            _targets(study, entry),
            entry.head,
            entry.quantize or study.quantize or (None,),
            list(settings(entry)),
            entry.learning_rate or study.learning_rate,
            list(itertools.product(*said.values())),
        ):
            own = tuple(zip(said, values, strict=True))
            yield Variant(entry.name, entry.label, options, targets, head, quantize, rate, own)


def _targets(study: StudyConfig, entry: MethodEntry) -> tuple[str | tuple[str, ...] | None, ...]:
    """The entry's targets, or the study's where the method takes any."""
    given = entry.targets
    if given is None and methods.get(entry.name).takes_targets:
        given = study.targets
    if isinstance(given, tuple) and any(isinstance(item, tuple) for item in given):
        return given
    return (given,)  # type: ignore[return-value]  # no item of it is a tuple


def _without_twins(variants: Iterable[Variant], of_study: Facts) -> list[tuple[Variant, Facts]]:
    """Each variant once, whether an option was written out or left to its default; a user's label is kept."""
    unique: list[tuple[Variant, Facts]] = []
    for variant in variants:
        facts = variant.facts(of_study)
        twin = next((n for n, (one, its) in enumerate(unique) if one.name == variant.name and its == facts), None)
        if twin is None:
            unique.append((variant, facts))
        elif variant.label and not unique[twin][0].label:
            unique[twin] = (variant, facts)
    return unique


def _labelled(variants: list[tuple[Variant, Facts]]) -> list[Variant]:
    """The variants with complete labels: the method's name or the user's word, then whatever tells them apart."""
    groups: defaultdict[tuple[str, str], list[Facts]] = defaultdict(list)
    for variant, facts in variants:
        groups[variant.name, variant.label].append(facts)
    varying = {
        which: [key for key in group[0] if any(other[key] != group[0][key] for other in group)]
        for which, group in groups.items()
    }
    done = []
    for variant, facts in variants:
        words = [_told(key, facts[key]) for key in varying[variant.name, variant.label]]
        done.append(replace(variant, label="-".join([variant.label or variant.name, *filter(None, words)])))
    labels = [variant.label for variant in done]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"The label '{label}' stands for two different variants: change one." for label in twice)
    return done


def _short(name: str, option: str) -> str:
    """The shortest name of an option: an alias where there is one."""
    names = [option, *(alias for alias, known in methods.get(name).aliases.items() if known == option)]
    return min(names, key=len)


def _told(key: str, value: Any) -> str:
    """``r4``, ``lr1e-3``, ``use_dora``, ``no-use_dora``, ``bias-all``, ``query+value``, ``4bit``, ``cosine``."""
    if key in _ENTRY_SAYS and value is None:
        return ""
    if key == "quantize":
        return "unquantised" if value == "none" else str(value or "as-is")
    if isinstance(value, bool) or value is None:
        return key if value else f"no-{key}"
    if isinstance(value, (int, float)):
        return f"{key}{_number(value, scientific=key == 'lr')}"
    text = "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if key in _PLAIN else f"{key}-{text}"


def _number(value: float, *, scientific: bool) -> str:
    if not scientific:
        return str(value) if isinstance(value, int) else f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
