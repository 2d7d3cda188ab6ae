"""A script for a process of its own: load an exported folder as its users would, and say what it answers.

Reads a JSON document from stdin and prints one to stdout. It imports transformers, and peft for an adapter; adaptlab
only for adapters of our own, which nothing else can load.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def load(task: dict[str, Any]) -> Any:
    """The model in ``task["folder"]``; ``task["form"]`` is model, peft or adaptlab."""
    import torch
    import transformers

    trust = task["trust_remote_code"]
    model_class = getattr(transformers, task["class"])
    if task["form"] == "model":
        return model_class.from_pretrained(task["folder"], trust_remote_code=trust)
    if task["form"] == "peft":
        from peft import PeftModel

        more: dict[str, Any] = {} if task["readout"] != "head" else {"num_labels": task["outputs"]}
        if task["quantization"]:
            more["quantization_config"] = transformers.BitsAndBytesConfig(**task["quantization"])
            more["device_map"] = {"": task["device"]}
        base = model_class.from_pretrained(task["base"], dtype=torch.float32, trust_remote_code=trust, **more)
        base.config.pad_token_id = task["pad_token_id"]
        return PeftModel.from_pretrained(base, task["folder"])
    from pathlib import Path

    from adaptlab.adapter import load_adapter
    from adaptlab.config import ModelConfig

    source = ModelConfig(
        id=task["base"], quantize=task["quantize"], trust_remote_code=trust, allow_pickle=task["allow_pickle"]
    )
    loaded = load_adapter(
        Path(task["folder"]),
        source,
        outputs=task["outputs"],
        regression=task["regression"],
        device="cpu",
        readout=task["readout"],
    )
    return loaded.model


def with_head(model: Any, tokenizer: Any, task: dict[str, Any]) -> list[list[float]]:
    """The logits of ``task["texts"]``."""
    import torch

    logits: list[list[float]] = []
    size = task["rows_at_once"]
    for start in range(0, len(task["texts"]), size):
        columns = [list(column) for column in zip(*task["texts"][start : start + size], strict=True)]
        batch = tokenizer(*columns, padding=True, truncation=True, max_length=task["max_length"], return_tensors="pt")
        with torch.inference_mode():
            logits += model(**batch.to(task["device"])).logits.float().tolist()
    return logits


def in_words(model: Any, task: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """For every answer of ``task["questions"]`` the logits of its tokens and its log-likelihood.

    One sequence is read at a time, with no cache and no padding.
    """
    import torch

    found = []
    for question in task["questions"]:
        answers = []
        for option in question["options"]:
            read = question["context"] if task["start"] is not None else [*question["context"], *option[:-1]]
            ids = torch.tensor([read], device=task["device"])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if task["start"] is not None:
                inputs["decoder_input_ids"] = torch.tensor([[task["start"], *option[:-1]]], device=task["device"])
            with torch.inference_mode():
                logits = model(**inputs, use_cache=False).logits[0, -len(option) :].float()
            tokens = torch.tensor(option, device=task["device"])[:, None]
            likelihood = logits.log_softmax(-1).gather(1, tokens).double().sum()
            answers.append({"logits": logits.gather(1, tokens)[:, 0].tolist(), "log_likelihood": float(likelihood)})
        found.append(answers)
    return found


def write(model: Any, tokenizer: Any, task: dict[str, Any]) -> list[str]:
    """What the model writes after each of ``task["questions"]``, up to where a stop string begins."""
    import torch

    texts, how = [], task["writing"]
    for question in task["questions"]:
        ids = torch.tensor([question["context"]], device=task["device"])
        begun = 1 if task["start"] is not None else ids.shape[1]
        with torch.inference_mode():
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how["generate"])
        text = tokenizer.decode(output[0, begun:], skip_special_tokens=True)
        ends = [text.index(stop) for stop in how["stop"] if stop in text]
        texts.append(text[: min(ends, default=len(text))].strip())
    return texts


def main() -> None:
    from transformers import AutoTokenizer

    task = json.load(sys.stdin)
    model = load(task).to(task["device"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(task["folder"])
    answered: dict[str, Any] = {}
    if task["readout"] == "head":
        answered["logits"] = with_head(model, tokenizer, task)
    else:
        answered["answers"] = in_words(model, task)
        answered["prompts"] = tokenizer(task["prompts"])["input_ids"]
        answered["written"] = write(model, tokenizer, task) if task["writing"] else []
    answered["imports"] = [name for name in ("transformers", "peft", "adaptlab") if name in sys.modules]
    print(json.dumps(answered))


if __name__ == "__main__":
    main()
