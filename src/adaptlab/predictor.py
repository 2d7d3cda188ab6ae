"""An adapted model, ready to answer: a finished run's, or any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from adaptlab import readouts
from adaptlab.config import Readout as ReadoutName
from adaptlab.errors import ConfigError, ModelError
from adaptlab.evaluation.demonstrations import Demonstrations, Fixed, choose
from adaptlab.methods import registry as methods
from adaptlab.methods._base import Attached
from adaptlab.metrics import breakdown, read_as, score
from adaptlab.metrics._base import Answers
from adaptlab.models.identity import weights_identity
from adaptlab.models.load import Base, load_base
from adaptlab.readouts import Readout, Setting
from adaptlab.resolve import device as resolve_device
from adaptlab.runs.record import Record
from adaptlab.runs.store import RunFolder
from adaptlab.tasks import find_task
from adaptlab.tasks._base import DataAccess, Example, Kind, TaskData
from adaptlab.tasks._elsewhere import Mapped, map_labels
from adaptlab.training.precision import Precision
from adaptlab.workshop import attach

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

Text = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer. ``scores`` are probabilities by label; empty for regression, where ``label`` is the number, and for
    what was written freely, where it is empty if no class was written."""

    label: str | float
    scores: dict[str, float]


def restore(run: tuple[RunFolder, Record], *, device: str = "auto", model: str | None = None) -> tuple[Base, Attached]:
    """A finished run's base and, on a model of its own, the run's method with what it trained; all in float32.

    Args:
        model: where the base lies now, if it is not where it was.

    Raises:
        ModelError: the base has other weights now, or the run's are damaged.
    """
    folder, record = run
    assert record.data is not None
    config = record.config.resolved
    source = config.model if model is None else config.model.model_copy(update={"id": model})
    if weights_identity(source) != record.config.identity.weights:
        raise ModelError(
            f"{record.name} was trained on other weights than {source.id} has now: give the base it was trained on"
            f" ({record.config.identity.weights[:23]}...) with --model."
        )
    regression = record.data.kind == "regression"
    outputs = 1 if regression else len(record.data.labels)
    base = load_base(
        source, num_labels=outputs, regression=regression, device=resolve_device(device), readout=config.readout
    )
    attached = attach(base, config)
    attached.method.load(attached, folder.adapter)
    return base, attached


def unlabelled(texts: Sequence[Text]) -> list[Example]:
    """Rows of texts alone.

    Raises:
        ConfigError: some are single and some are pairs.
    """
    rows = [Example(str(i), (t,) if isinstance(t, str) else tuple(t), 0) for i, t in enumerate(texts)]
    if len({len(row.texts) for row in rows}) > 1:
        raise ConfigError("Some inputs are single texts and some are pairs: give all of one kind.")
    return rows


class Predictor:
    """An adapted model that answers texts. ``model`` is called as Hugging Face's are."""

    def __init__(
        self, base: Base, model: nn.Module, readout: Readout, *, labels: Sequence[str], precision: Precision
    ) -> None:
        self.labels = tuple(labels)
        self._model = model.eval()
        self._readout = readout
        self._precision = precision

    @classmethod
    def with_head(
        cls,
        base: Base,
        model: nn.Module,
        *,
        labels: Sequence[str],
        regression: bool,
        max_length: int,
        precision: Precision,
    ) -> Predictor:
        """A classifier (or a regressor) that reads texts as they are."""
        kind: Kind = "regression" if regression else "classification"
        setting = Setting(base.tokenizer, base.layout, kind, tuple(labels), (), None, max_length)
        return cls(base, model, readouts.build("head", setting), labels=labels, precision=precision)

    @classmethod
    def in_words(
        cls, base: Base, model: nn.Module, name: ReadoutName, data: TaskData, *, max_length: int, precision: Precision
    ) -> Predictor:
        """A language model that answers the rows of ``data`` in the first of their prompts."""
        setting = Setting(
            base.tokenizer, base.layout, data.kind, data.labels, data.columns, data.prompts[0], max_length, base.start
        )
        return cls(base, model, readouts.build(name, setting), labels=data.labels, precision=precision)

    @classmethod
    def of_run(
        cls,
        run: tuple[RunFolder, Record],
        *,
        device: str = "auto",
        model: str | None = None,
        data_root: str | None = None,
    ) -> Predictor:
        """The model of a finished run, in the dtype it was evaluated in, so that it repeats the run's predictions.

        Args:
            data_root: where the training rows are, for a run that shows every question demonstrations of its own.
        """
        config, data = run[1].config.resolved, run[1].data
        assert data is not None
        precision = Precision(config.training.dtype, resolve_device(device))
        base, attached = restore(run, device=device, model=model)
        precision.prepare(attached, {})
        readout = readouts.build(config.readout, setting_of(run[1], base, data_root))
        return cls(base, attached.model, readout, labels=data.labels, precision=precision)

    def predict(self, texts: Sequence[Text]) -> list[Prediction]:
        """An answer for each text, or pair of texts, in order.

        Raises:
            ConfigError: the run's rows have other parts than one or two texts.
        """
        if not texts:
            return []
        rows, columns = unlabelled(texts), self._readout.setting.columns
        if self._readout.setting.kind == "multiple-choice":
            raise ConfigError("Texts alone have no options to choose from: use `adaptlab evaluate` with a task.")
        if self._readout.setting.prompt is not None and len(columns) != len(rows[0].texts):
            raise ConfigError(
                f"The run's prompt has {len(columns)} texts ({', '.join(columns)}), and {len(rows[0].texts)} were "
                "given: give a text for each."
            )
        answers = self.answers(rows)
        if answers.probabilities is None:
            return [Prediction(self._said(value), {}) for value in answers.predicted]
        return [
            Prediction(self.labels[int(best)], dict(zip(self.labels, map(float, row), strict=True)))
            for best, row in zip(answers.predicted, answers.probabilities, strict=True)
        ]

    def _said(self, value: Any) -> str | float:
        """A written answer: a text, a number, or a class by its name, which is empty where no class was written."""
        if isinstance(value, str) or self._readout.setting.kind != "classification":
            return value if isinstance(value, str) else float(value)
        return self.labels[int(value)] if value >= 0 else ""

    def score(self, data: TaskData, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
        """Metrics on every report set of ``data``, whose labels may stand in another order than the run's.

        Labels that are not the run's are read as two classes where that is known to be right (``mapped``).

        Raises:
            ConfigError: the labels of ``data`` are not those the run was trained on.
        """
        mapped = self.mapped(data)
        results = {}
        for name, examples in data.report.items():
            rows = [replace(row, label=mapped.of_gold[int(row.label)]) for row in examples] if data.labels else examples
            answers = self.answers(rows)
            if mapped.labels != self.labels:
                answers = read_as(answers, mapped.of_answer, len(mapped.labels))
            parts = breakdown(answers, [row.groups for row in examples], wanted[0])
            results[name] = {**score(answers, data.kind, wanted), **parts, "n": float(len(examples))}
        return results

    def mapped(self, data: TaskData) -> Mapped:
        """How the run's classes are scored on ``data``.

        Raises:
            ConfigError: the labels of ``data`` are not those the run was trained on, and cannot be made alike.
        """
        mapped = map_labels(self.labels, data.labels)
        if mapped is None:
            raise ConfigError(
                f"The run answers with {_said(self.labels)}, the task has {_said(data.labels)}: give a task with the "
                "same labels."
            )
        return mapped

    def answers(self, examples: Sequence[Example]) -> Answers:
        """Answers to ``examples`` with their gold labels."""
        rows = self._readout.encode(examples, training=False)
        return self._readout.answer(self._model, rows, self._precision).about(examples).answers

    def logits(self, examples: Sequence[Example]) -> NDArray[np.floating]:
        """``[rows, outputs]`` a head's raw scores; log-probabilities of labels in words."""
        if isinstance(self._readout, readouts.Head):
            return self._readout.logits(self._model, self._readout.encode(examples, training=False), self._precision)
        import numpy as np

        probabilities = self.answers(examples).probabilities
        assert probabilities is not None
        logarithms: NDArray[np.floating] = np.log(probabilities)
        return logarithms


def setting_of(record: Record, base: Base, data_root: str | None) -> Setting:
    """A finished run's rows before its model, from its record.

    Args:
        data_root: where the training rows are, for a run that shows every question demonstrations of its own.
    """
    config, data = record.config.resolved, record.data
    assert data is not None
    shown: Demonstrations | None = None
    if data.demonstrations is not None:
        shown = Fixed(tuple(Example(**{k: _tuple(v) for k, v in row.items()}) for row in data.demonstrations))
    elif config.shots:
        rows = find_task(config.task.name).load(config.task, DataAccess(data_root=data_root)).train
        shown = choose(rows, config.shots, seed=config.seed, how=config.answering)
    return Setting(
        tokenizer=base.tokenizer,
        layout=base.layout,
        kind=cast(Kind, data.kind),
        labels=tuple(data.labels),
        columns=tuple(data.columns),
        prompt=data.prompt,
        max_length=int(config.task.max_length),
        start=base.start,
        caches=methods.get(config.method.name).placement != "prompt",
        shots=shown,
        distils=config.objective == "context-distillation",
        how=config.answering,
    )


def _said(labels: Sequence[str]) -> str:
    """The labels in a sentence: not all of many."""
    if len(labels) > 8:
        return f"{len(labels)} labels ({', '.join(labels[:4])}, ...)"
    return ", ".join(labels) or "a number"


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
