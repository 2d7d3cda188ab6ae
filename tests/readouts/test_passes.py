"""What a forecast passes through a model for answers has the shapes of what answering does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptlab.methods import registry
from adaptlab.readouts import Answered
from tests.contracts.readout_checks import PRECISION, asker, examples


def seen(model: torch.nn.Module, work: Callable[[], object]) -> list[tuple[Any, ...]]:
    """Shapes of what every forward pass reads: tokens, the decoder's tokens, what the cache holds."""
    shapes: list[tuple[Any, ...]] = []

    def look(_: Any, args: Any, given: dict[str, Any]) -> None:
        ids = [tuple(given[n].shape) for n in ("input_ids", "decoder_input_ids") if given.get(n) is not None]
        cache = given.get("past_key_values")
        shapes.append((*ids, 0 if cache is None else cache.get_seq_length()))

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    work()
    handle.remove()
    return shapes


@pytest.mark.parametrize("family", ["t5", "opt"])
def test_likelihoods_are_read_in_the_same_batches(family: str, tiny_model_folder: Callable[[str], Path]) -> None:
    asked = asker(tiny_model_folder(family), "verbalizer")
    attached = asked.attach(registry.get("none"))
    model, readout = attached.model.eval(), asked.readout(attached.method)
    rows = readout.encode(examples(), training=False)

    def answer() -> Answered:
        return readout.answer(model, rows, PRECISION)

    def rehearse() -> None:
        for batch in readout.answer_batches(model, rows):
            for times, call in readout.passes(model, rows, batch, PRECISION):
                assert times == 1
                call()

    with torch.no_grad():
        found = seen(model, rehearse)
    assert found == seen(model, answer)
    assert found


@pytest.mark.parametrize("family", ["t5", "opt"])
def test_writing_reads_the_context_and_then_token_by_token(
    family: str, tiny_model_folder: Callable[[str], Path]
) -> None:
    asked = asker(tiny_model_folder(family), "generate")
    attached = asked.attach(registry.get("none"))
    model, readout = attached.model.eval(), asked.readout(attached.method)
    rows = readout.encode(examples(), training=False)
    (batch,) = readout.answer_batches(model, rows)
    written = readout.setting.how.max_new_tokens
    shapes: list[tuple[float, tuple[Any, ...]]] = []
    with torch.no_grad():
        for times, call in readout.passes(model, rows, batch, PRECISION):
            shapes += [(times, shape) for shape in seen(model, call)]
    ids = torch.ones(len(rows), batch.length, dtype=torch.long)
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = None

    def write() -> Any:
        return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=written,
                              do_sample=False, pad_token_id=0)  # fmt: skip

    real = seen(model, write)
    assert len(real) == written
    assert shapes[0] == (1, real[0])
    assert sum(times for times, _ in shapes) == written
    assert shapes[-1] == (0, real[-1])
    assert shapes[1][1] in real[1:-1]
