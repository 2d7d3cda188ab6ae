"""Base of the tasks whose rows are a published data set: a new one says its facts and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptlab.config import TaskConfig
from adaptlab.errors import ConfigError, DataError
from adaptlab.tasks._base import DataAccess, Example, Task, TaskData
from adaptlab.tasks._prompts import plain_prompts
from adaptlab.tasks._sources import Address, find_rows
from adaptlab.tasks._splits import Published, assemble, fingerprint, report_subset
from adaptlab.tasks._table import Table


class HubTask(Task):
    """A task over one data set, as the hub names it: classification, regression, or one text from another.

    See docs/adding-a-task.md; rows with options of their own override ``examples``.

    Attributes:
        hub_id: e.g. ``"nyu-mll/glue"``.
        hub_config: the data set's configuration, e.g. ``"sst2"``.
        revision: branch, tag or commit; ``None`` takes the newest and the record says which that was.
        text_columns: one or two columns.
        labels: names of the classes in the order of their indices, as the source has them; empty without classes.
        renamed: the task's label for a class that the source calls otherwise; several may become one.
        group_columns: columns whose values name parts of the set that are scored apart.
        train_split: ``None`` where the data set is only for looking at.
        validation_split: ``None`` where the data set has none: a part of the training rows then selects.
        test_split: ``None`` where the data set has none or its labels are not public.
        more_splits: evaluation sets that are reported besides, where the source has them.
    """

    hub_id: str
    hub_config: str | None = None
    revision: str | None = None
    text_columns: tuple[str, ...]
    label_column: str = "label"
    labels: tuple[str, ...] = ()
    renamed: Mapping[str, str] = {}
    group_columns: tuple[str, ...] = ()
    train_split: str | None = "train"
    validation_split: str | None = "validation"
    test_split: str | None = None
    more_splits: tuple[str, ...] = ()

    def load(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """Read the rows from the data root or the hub, divide them and take the subsets asked for."""
        refuse_file_options(self.name, config)
        if self.train_split is None:
            raise ConfigError(
                f"The task '{self.name}' has no training rows: give it with --also-evaluate, beside another --task."
            )
        needed = [split for split in (self.train_split, self.validation_split, self.test_split) if split]
        found = find_rows(Address(self.hub_id, self.hub_config, self.revision), needed, self.more_splits, access)
        rows = {split: self.examples(split, table) for split, table in found.tables.items()}
        absent = [split for split in self.more_splits if split not in rows]
        published = Published(
            train=rows[self.train_split],
            validation=rows[self.validation_split] if self.validation_split else (),
            test=rows[self.test_split] if self.test_split else (),
            report_name=self.test_split or self.validation_split or "test",
            more={split: rows[split] for split in self.more_splits if split in rows},
        )
        return assemble(
            published,
            kind=self.kind,
            labels=self.labels,
            metrics=self.metrics,
            config=config,
            columns=self.text_columns,
            prompts=self.prompts or plain_prompts(self.text_columns),
            source="/".join(filter(None, [self.hub_id, self.hub_config])),
            revision=found.revision,
            warnings=[f"The source has no {split}: nothing is reported on it." for split in absent],
        )

    def look(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """The test rows, or all validation rows where there is no test: none of them is needed for selection."""
        refuse_file_options(self.name, config)
        split = self.test_split or self.validation_split
        if split is None:
            return super().look(config, access)
        found = find_rows(Address(self.hub_id, self.hub_config, self.revision), [split], [], access)
        rows, warnings = report_subset(self.examples(split, found.tables[split]), config, split)
        return TaskData(
            kind=self.kind,
            labels=self.labels,
            train=(),
            select=(),
            report={split: rows},
            source="/".join(filter(None, [self.hub_id, self.hub_config])),
            revision=found.revision,
            fingerprint=fingerprint(self.kind, self.labels, {split: rows}),
            warnings=tuple(warnings),
            metrics=self.metrics,
            columns=self.text_columns,
        )

    def examples(self, split: str, table: Table) -> list[Example]:
        """One split's rows. A row's id is its split and place, which is the same wherever the rows come from.

        Raises:
            DataError: a column is missing, a text is null, or a label is none of the task's.
        """
        columns = [self._column(split, table, name) for name in self.text_columns]
        labels = self._labels(split, table)
        for name, column in zip(self.text_columns, columns, strict=True):
            if None in column:
                raise DataError(f"{self.name}: row {column.index(None) + 1} of {split} has no {name}.")
        texts: Sequence[tuple[str, ...]] = list(zip(*columns, strict=True))
        groups = self.groups(split, table)
        return [
            Example(f"{split}/{place}", text, label, groups=group)
            for place, (text, label, group) in enumerate(zip(texts, labels, groups, strict=True))
        ]

    def questions(self, split: str, access: DataAccess, hub_config: str | None = None) -> list[Example]:
        """See ``Task.questions``."""
        address = Address(self.hub_id, hub_config or self.hub_config, self.revision)
        table = find_rows(address, [split], [], access).tables[split]
        texts = zip(*(self._column(split, table, name) for name in self.text_columns), strict=True)
        return [Example(f"{split}/{place}", text, 0) for place, text in enumerate(texts)]

    def labels_in_order(self) -> tuple[str, ...]:
        return self.labels

    def groups(self, split: str, table: Table) -> Sequence[tuple[str, ...]]:
        """Each row's parts of the set: the values of ``group_columns``."""
        if not self.group_columns:
            return [()] * len(table)
        return list(zip(*(self._column(split, table, name) for name in self.group_columns), strict=True))

    def _column(self, split: str, table: Table, name: str) -> list[Any]:
        if name not in table.columns:
            there = ", ".join(table.columns)
            raise DataError(f"{self.name}: {split} has no column '{name}': it has {there}.")
        return table.columns[name]

    def _labels(self, split: str, table: Table) -> Sequence[int | float | str]:
        column = self._column(split, table, self.label_column)
        if self.kind == "generation":
            bad = next((i for i, value in enumerate(column) if not value), None)
            if bad is not None:
                raise DataError(f"{self.name}: row {bad + 1} of {split} has no {self.label_column}.")
            return column
        if self.kind == "regression":
            bad = next((i for i, value in enumerate(column) if value is None or value != value), None)
            if bad is not None:
                raise DataError(f"{self.name}: row {bad + 1} of {split} has no label.")
            return [float(value) for value in column]
        stored = table.class_names.get(self.label_column, self.labels)
        names = [self.renamed.get(name, name) for name in stored]
        if set(names) != set(self.labels):
            raise DataError(
                f"{self.name}: the classes of {split} are {', '.join(names)}, not {', '.join(self.labels)} as the task "
                "has them: the source has changed, so the task needs a new version."
            )
        # Sources store either the class's index, in their own order, or its name.
        index: dict[int | str, int] = {i: self.labels.index(name) for i, name in enumerate(names)}
        index |= {name: i for i, name in enumerate(self.labels)}
        index |= {name: self.labels.index(new) for name, new in self.renamed.items()}
        try:
            return [index[value] for value in column]
        except (KeyError, TypeError):
            row = next(i for i, value in enumerate(column) if value not in index)
            raise DataError(
                f"{self.name}: row {row + 1} of {split} has the label {column[row]!r}, which is none of "
                f"{', '.join(self.labels)}."
            ) from None


def refuse_file_options(name: str, config: TaskConfig) -> None:
    """A published task knows where its texts stand.

    Raises:
        ConfigError: ``config`` says where columns stand.
    """
    given = {
        "--text-columns": config.text_columns,
        "--label-column": config.label_column,
        "--explanation-column": config.explanation_column,
        "--delimiter": config.delimiter,
    }
    problems = [
        f"{flag} was given for the task '{name}', which knows its own columns: it is for your own files."
        for flag, value in given.items()
        if value is not None
    ]
    if problems:
        raise ConfigError(problems)
