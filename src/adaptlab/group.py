"""Runs that train together: a run alone goes through its own model, several go through one that they share."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
import torch

from adaptlab.engines.fused import Fused
from adaptlab.engines.packing import activation_bytes, chosen_engine, pack
from adaptlab.engines.passing import Passing
from adaptlab.methods import registry as methods
from adaptlab.metrics._base import Answers
from adaptlab.models.identity import read_config
from adaptlab.models.load import Base, fresh_model
from adaptlab.resolve import ResolvedRun
from adaptlab.study.events import RunsPacked
from adaptlab.training.dropout import calls_functional_dropout
from adaptlab.training.encode import Encoded
from adaptlab.workshop import Stage, Workshop

#: Of the longest row, at the least: a group's memory is predicted before anything is tokenised.
_CHARACTERS_PER_TOKEN, _SPECIAL_TOKENS = 3, 4


class Group:
    """A group of runs over one base.

    Attributes:
        engine: ``solo`` or ``fused``.
        backward: the group's forward and backward pass.
        answer_seconds: spent in answering so far.
    """

    def __init__(self, stages: Sequence[Stage], base: Base, workshop: Workshop) -> None:
        self.stages = list(stages)
        self.answer_seconds = 0.0
        self.backward: Passing = self.stages[0].backward
        self._fused: Fused | None = None
        self._final: dict[str, dict[int, Answers]] = {}
        if len(self.stages) > 1:
            self.backward = self._fused = _fuse(self.stages, base, workshop)

    @property
    def engine(self) -> str:
        return "solo" if self._fused is None else "fused"

    def answer(self, stages: Sequence[Stage], rows: Encoded) -> list[Answers]:
        """Each run's answers to ``rows``: one pass over them for all runs."""
        started = time.perf_counter()
        if self._fused is None or len(stages) == 1:
            found = [stage.answer(rows) for stage in stages]
        else:
            wide = stages[0].scores(self._fused.side_by_side([stage.member for stage in stages]), rows)
            found = [
                stage.answered(own, rows)
                for stage, own in zip(stages, np.split(wide, len(stages), axis=1), strict=True)
            ]
        self.answer_seconds += time.perf_counter() - started
        return found

    def final_answer(self, stage: Stage, name: str, rows: Encoded) -> Answers:
        """A run's answers to the report set ``name``; all runs that are to answer it do so when the first is asked."""
        if name not in self._final:
            able = [one for one in self.stages if not one.member.progress.diverged]
            found = self.answer(able, rows)
            self._final[name] = {id(one): answers for one, answers in zip(able, found, strict=True)}
        return self._final[name][id(stage)]


def groups_of(runs: Sequence[ResolvedRun], workshop: Workshop) -> list[list[ResolvedRun]]:
    """``runs`` sorted into groups for the engine that was asked for; the listener hears of it."""
    if chosen_engine(workshop.execution.engine, workshop.device) == "solo":
        return [[run] for run in runs]
    packing = pack(
        runs,
        lambda run: methods.get(run.resolved.method.name).placement,
        run_bytes=_run_bytes,
        budget_bytes=_free_bytes(workshop.device),
    )
    groups = tuple(tuple(run.name for run in group) for group in packing.groups if len(group) > 1)
    workshop.listener(RunsPacked(groups, packing.alone))
    return packing.groups


def _run_bytes(run: ResolvedRun) -> int:
    """What a run adds to its group's memory; its weights, gradients and moments are small beside its activations."""
    config = run.resolved
    characters = max(sum(map(len, example.texts)) for example in run.data.train)
    return activation_bytes(
        read_config(config.model),
        rows=config.training.batch_size,
        length=min(int(config.task.max_length), characters // _CHARACTERS_PER_TOKEN + _SPECIAL_TOKENS),
        bytes_per_number=2 if config.training.dtype in ("bfloat16", "float16") else 4,
    )


def _free_bytes(device: str) -> int:
    """Half of what is free: the rest is the base's, and the allocator's."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] // 2
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _fuse(stages: Sequence[Stage], base: Base, workshop: Workshop) -> Fused:
    first = stages[0]
    shared = fresh_model(base, share=True)
    first.precision.prepare_model(shared, base.layout.head_modules, workshop.casts)
    return Fused(
        shared,
        [stage.member for stage in stages],
        [stage.clock for stage in stages],
        base.layout.blocks,
        precision=first.precision,
        pad_id=base.tokenizer.pad_token_id,
        padding_side=base.tokenizer.padding_side,
        micro_batch_size=workshop.execution.micro_batch_size,
        functional=calls_functional_dropout(shared),
    )
