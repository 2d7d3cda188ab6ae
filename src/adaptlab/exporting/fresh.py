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
    from transformers import AutoModelForSequenceClassification

    trust = task["trust_remote_code"]
    if task["form"] == "model":
        return AutoModelForSequenceClassification.from_pretrained(task["folder"], trust_remote_code=trust)
    if task["form"] == "peft":
        from peft import PeftModel

        more: dict[str, Any] = {}
        if task["quantization"]:
            from transformers import BitsAndBytesConfig

            more = {"quantization_config": BitsAndBytesConfig(**task["quantization"])}
            more["device_map"] = {"": task["device"]}
        base = AutoModelForSequenceClassification.from_pretrained(
            task["base"], num_labels=task["outputs"], dtype=torch.float32, trust_remote_code=trust, **more
        )
        base.config.pad_token_id = task["pad_token_id"]
        return PeftModel.from_pretrained(base, task["folder"])
    from pathlib import Path

    from adaptlab.adapter import load_adapter
    from adaptlab.config import ModelConfig

    source = ModelConfig(
        id=task["base"], quantize=task["quantize"], trust_remote_code=trust, allow_pickle=task["allow_pickle"]
    )
    loaded = load_adapter(
        Path(task["folder"]), source, outputs=task["outputs"], regression=task["regression"], device="cpu"
    )
    return loaded.model


def main() -> None:
    import torch
    from transformers import AutoTokenizer

    task = json.load(sys.stdin)
    model = load(task).to(task["device"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(task["folder"])
    logits: list[list[float]] = []
    size = task["rows_at_once"]
    for start in range(0, len(task["texts"]), size):
        columns = [list(column) for column in zip(*task["texts"][start : start + size], strict=True)]
        batch = tokenizer(*columns, padding=True, truncation=True, max_length=task["max_length"], return_tensors="pt")
        with torch.inference_mode():
            logits += model(**batch.to(task["device"])).logits.float().tolist()
    imports = [name for name in ("transformers", "peft", "adaptlab") if name in sys.modules]
    print(json.dumps({"logits": logits, "imports": imports}))


if __name__ == "__main__":
    main()
