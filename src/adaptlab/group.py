"""Runs that train together: a run alone goes through its own model, several go through one that they share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from adaptlab.engines.fused import Fused, bare
from adaptlab.engines.packing import CHECKPOINTING, chosen_engine, pack
from adaptlab.engines.passing import Passing
from adaptlab.methods import registry as methods
from adaptlab.models.load import Base, fresh_model
from adaptlab.planning import free_bytes, run_bytes
from adaptlab.readouts import Answered
from adaptlab.resolve import ResolvedRun
from adaptlab.study.events import RunsPacked
from adaptlab.training.dropout import calls_functional_dropout
from adaptlab.training.outputs import StoredOutputs
from adaptlab.workshop import Stage, Workshop, splits


class Group:
    """A group of runs over one base.

    Attributes:
        engine: ``solo`` or ``fused``.
        backward: the group's forward and backward pass.
        own_clock: False where others share the clock, which then says nothing about a run alone.
        inherited_seconds: of a run's clock, what an earlier run of the process spent on rows that this one was handed.
        answer_seconds: spent in answering so far.
    """

    def __init__(self, runs: Sequence[tuple[ResolvedRun, Stage]], base: Base, workshop: Workshop) -> None:
        self._runs, self._workshop = list(runs), workshop
        self.stages = [stage for _, stage in runs]
        self.answer_seconds = 0.0
        self.backward: Passing = self.stages[0].backward
        self.own_clock = len(self.stages) == 1
        self.inherited_seconds = 0.0
        self._fused: Fused | None = None
        self._outputs: StoredOutputs | None = None
        self._final: dict[str, dict[int, Answered]] = {}
        if len(self.stages) > 1:
            self.backward = self._fused = _fuse(self.stages, base, workshop)
        else:
            self._outputs = _store_outputs(self.stages[0], base, workshop)

    @property
    def engine(self) -> str:
        return "solo" if self._fused is None else "fused"

    def owed(self) -> float:
        """Seconds since it was last asked that an earlier run spent on work of this one: alone it would take them."""
        owed = self._outputs.take_owed() if self._outputs is not None else 0.0
        self.inherited_seconds += owed
        return owed

    def answer(self, runs: Sequence[tuple[ResolvedRun, Stage]], split: str) -> list[Answered]:
        """Each run's answers to a split: where the readout can, one pass over its rows for all runs."""
        started = time.perf_counter()
        run, stage = runs[0]
        examples = splits(run.data)[split]
        found: list[Answered] | None = None
        if self._fused is not None and len(runs) > 1:
            rows = self._workshop.rows(run, stage.readout, split)
            wide = self._fused.side_by_side([own.member for _, own in runs])
            found = stage.readout.answers(wide, rows, stage.precision, models=len(runs))
        if found is None:
            found = [own.answer(self._workshop.rows(each, own.readout, split), examples) for each, own in runs]
        else:
            found = [each.about(examples) for each in found]
        self.answer_seconds += time.perf_counter() - started + self.owed()
        return found

    def final_answer(self, stage: Stage, name: str) -> Answered:
        """A run's answers to the report set ``name``; all runs that are to answer it do so when the first is asked."""
        if name not in self._final:
            able = [(run, one) for run, one in self._runs if not one.member.progress.diverged]
            found = self.answer(able, name)
            self._final[name] = {id(one): answered for (_, one), answered in zip(able, found, strict=True)}
        return self._final[name][id(stage)]


def groups_of(runs: Sequence[ResolvedRun], workshop: Workshop) -> list[list[ResolvedRun]]:
    """``runs`` sorted into groups for the engine that was asked for; the listener hears of it."""
    execution = workshop.execution
    if chosen_engine(execution.engine, workshop.device) == "solo" or execution.devices_per_run > 1:
        return [[run] for run in runs]
    untrained = [run for run in runs if run.resolved.training.steps == 0]
    packing = pack(
        [run for run in runs if run.resolved.training.steps != 0],
        lambda run: methods.get(run.resolved.method.name),
        run_bytes=lambda run: run_bytes(run.resolved, run.data),
        budget_bytes=free_bytes(workshop.device),
        all_alone=CHECKPOINTING if workshop.execution.gradient_checkpointing else None,
    )
    groups = tuple(tuple(run.name for run in group) for group in packing.groups if len(group) > 1)
    workshop.listener(RunsPacked(groups, packing.alone))
    return [*packing.groups, *([run] for run in untrained)]


def _store_outputs(stage: Stage, base: Base, workshop: Workshop) -> StoredOutputs | None:
    """Have a solo run compute once what stays the same below all that it trains; ``None`` where nothing does."""
    member = stage.member
    outputs = StoredOutputs(
        bare(member.attached.model),
        base.layout.blocks,
        member.modes.still,
        lambda blocks: workshop.store(f"{blocks}|{stage.precision.name}"),
    )
    if not outputs.deep or member.total_steps == 0:
        return None

    first = member.plan.batch(0, member.seed)

    def forward(**inputs: Any) -> Any:
        with stage.precision.autocast(), stage.precision.attention(first.length):
            return member.attached.model(**inputs)

    member.modes.eval()
    outputs.check(forward, member.collate(member.data, first.rows, first.length).inputs)
    return outputs


def _fuse(stages: Sequence[Stage], base: Base, workshop: Workshop) -> Fused:
    first = stages[0]
    shared = fresh_model(base, share=True)
    first.precision.prepare_model(shared, base.layout.head_modules, workshop.casts, base.layout.word_head)
    return Fused(
        shared,
        [stage.member for stage in stages],
        [stage.clock for stage in stages],
        base.layout,
        precision=first.precision,
        micro_batch_size=workshop.execution.micro_batch_size,
        functional=calls_functional_dropout(shared),
    )
