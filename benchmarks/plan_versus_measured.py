"""What `adaptlab plan` says a run will hold in memory, against what a solo probe measures.

Three architectures at their published sizes with random weights, eight methods, four batch shapes. A measurement is a
fresh process (adaptlab's own probe), every prediction is made from config.json alone. Printed are both and their ratio;
at the end the mean and the worst error over the configurations that hold more than 500 MB.

    python benchmarks/plan_versus_measured.py [--device cpu|cuda] [--only opt-125m,t5-small]
        [--readouts head,verbalizer,generate] [--keep JSONL] [--out MD]

With --keep, measurements that the file has are not made again: a grid that was stopped goes on. Predictions always are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from adaptlab.config import (
    ExecutionConfig,
    MethodConfig,
    ModelConfig,
    Prompt,
    Readout,
    RunConfig,
    RunIdentity,
    TaskConfig,
    TrainingConfig,
)
from adaptlab.measure.environment import processor_name
from adaptlab.models._base import Layout
from adaptlab.models.load import skeleton
from adaptlab.probing import Request, Server
from adaptlab.resolve import ResolvedRun
from adaptlab.simulating import Memory, simulate
from adaptlab.tasks._base import Example, TaskData
from adaptlab.tokens_ahead import Portion, rows_ahead
from adaptlab.training.batches import BatchRows

MEGABYTE = 1e6
LEAST_BYTES = 500 * MEGABYTE
LABELS = ("a", "b", "c")

#: Published architectures: configuration, pretraining class, options.
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "distilbert-base": ("DistilBertConfig", "DistilBertForMaskedLM", {}),
    "opt-125m": (
        "OPTConfig",
        "OPTForCausalLM",
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072, "vocab_size": 50272},
    ),
    "t5-small": (
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "d_model": 512,
            "d_ff": 2048,
            "num_layers": 6,
            "num_heads": 8,
            "vocab_size": 32128,
            "decoder_start_token_id": 0,
        },
    ),
}
METHODS = ("full", "top-layers", "layer-norm", "lora", "dora", "ia3", "oft", "parallel-adapter")
#: Rows, tokens, dtype.
SHAPES = ((8, 128, "float32"), (4, 256, "float32"), (16, 128, "bfloat16"), (32, 64, "bfloat16"))


def build(name: str, folder: Path) -> Path:
    """A model folder: config, random weights, and a tokenizer for which every word is a token."""
    config_name, architecture, options = ARCHITECTURES[name]
    words = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", "word", "a", "1", "."))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    config = getattr(transformers, config_name)(pad_token_id=0, eos_token_id=1, **options)
    getattr(transformers, architecture)(config).save_pretrained(folder)
    return folder


def configuration(folder: Path, method: str, readout: Readout, rows: int, dtype: str, length: int) -> RunConfig:
    return RunConfig(
        model=ModelConfig(id=str(folder)),
        task=TaskConfig(name="words", max_length=length),
        method=MethodConfig(name=method, label=method),
        training=TrainingConfig(steps=100, eval_every=100, epochs=1, batch_size=rows, learning_rate=1e-5, dtype=dtype),
        readout=readout,
    )


def words(readout: Readout, rows: int, length: int) -> TaskData:
    """Rows of ``length`` tokens, the prompt's and the answer's included."""
    text = " ".join(["word"] * (length - (1 if readout == "head" else 4)))
    examples = tuple(Example(id=str(i), texts=(text,), label=i % 3) for i in range(rows))
    return TaskData(
        kind="classification", labels=LABELS, train=examples, select=examples, report={}, source="words",
        revision=None, fingerprint="sha256:0", metrics=("accuracy",), columns=("text",),
        prompts=(Prompt(name="plain", template="{text} .", answers=LABELS),),
    )  # fmt: skip


def planned(config: RunConfig, bare: nn.Module, layout: Layout, data: TaskData, device: str) -> Memory:
    """What a plan says of a batch of all rows, and of answering them."""
    ahead = rows_ahead(config, bare, layout, data)
    everything = ahead.portion(BatchRows(np.arange(len(data.train)), int(ahead.lengths.max())))
    some, _ = ahead.answered["select"]
    batches = ahead.readout.answer_batches(bare, some)
    largest = max((Portion(some, batch) for batch in batches), key=lambda portion: portion.shape[0] * portion.shape[1])
    return simulate(
        config, bare, layout, readout=ahead.readout, device=device, machine=None, train=(everything,), answer=largest
    ).memory


def measured(config: RunConfig, data: TaskData, device: str) -> tuple[int, int]:
    """Bytes held while training and while answering, by a fresh process."""
    identity = RunIdentity(weights=config.model.id, data="sha256:0", task="words", task_version=1)
    run = ResolvedRun(config, config, identity, "0", "words", data)
    rows = tuple(data.train)
    found = Server.shared().measure(
        Request(run, ExecutionConfig(device=device), torch.get_num_threads(), rows, rows[:1], rows, most_steps=1)
    )
    return found.train_bytes, found.eval_bytes


class Kept:
    """Measurements in a file, one a line, so that a grid that was stopped goes on; without a file all are made."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        self._known = {tuple(found["key"]): tuple(found["bytes"]) for found in map(json.loads, lines)}

    def get(self, key: tuple[Any, ...], measure: Callable[[], tuple[int, int]]) -> tuple[int, int]:
        if key not in self._known:
            self._known[key] = measure()
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "bytes": self._known[key]}) + "\n")
        return self._known[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", default=",".join(ARCHITECTURES))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--readouts", default="head", help="head, verbalizer, generate; encoders have a head only")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="the first so many shapes")
    parser.add_argument("--keep", type=Path, help="measurements made so far, JSON lines")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    kept = Kept(given.keep)
    lines = [
        "| model | method | rows x tokens | dtype | planned MB | measured MB | planned / measured | answering |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    errors: list[tuple[float, str]] = []
    for name in given.only.split(","):
        asked: list[Readout] = given.readouts.split(",")
        readouts = [one for one in asked if one == "head" or "MaskedLM" not in ARCHITECTURES[name][1]]
        with tempfile.TemporaryDirectory() as folder:
            model = build(name, Path(folder))
            for readout, method, shape in product(readouts, given.methods.split(","), SHAPES[: given.shapes]):
                rows, length, dtype = shape
                bare, layout = skeleton(ModelConfig(id=str(model)), num_labels=len(LABELS), readout=readout)
                config = configuration(model, method, readout, rows, dtype, length)
                data = words(readout, rows, length)
                told = planned(config, bare, layout, data, given.device)
                key = (given.device, name, method, *shape, *(() if readout == "head" else (readout,)))
                training, answering = kept.get(key, partial(measured, config, data, given.device))
                ratio, called = told.total / training, name if readout == "head" else f"{name}, {readout}"
                lines.append(
                    f"| {called} | {method} | {rows} x {length} | {dtype} | {told.total / MEGABYTE:.0f} |"
                    f" {training / MEGABYTE:.0f} | {ratio:.2f} | {told.answering / answering:.2f} |"
                )
                print(lines[-1], flush=True)
                if training > LEAST_BYTES:
                    errors.append((abs(ratio - 1), f"{called}, {method}, {rows} x {length}, {dtype}"))
    worst = max(errors)
    lines += [
        "",
        f"{len(errors)} configurations of more than 500 MB, {processor_name() if given.device == 'cpu' else 'CUDA'}, "
        f"torch {torch.__version__}: mean error {sum(e for e, _ in errors) / len(errors):.1%}, "
        f"worst {worst[0]:.1%} ({worst[1]}).",
    ]
    print("\n".join(lines[-2:]))
    if given.out:
        given.out.write_text("\n".join(["# Planned and measured memory", "", *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
