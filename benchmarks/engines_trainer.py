"""One run by transformers' Trainer and peft at their best settings, written the way their own examples do it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

#: What "query" and "value" are called.
_TARGETS = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "opt": ["q_proj", "v_proj"],
    "t5": ["q", "v"],
}
_HEADS = {"bert": ["classifier"], "roberta": ["classifier"], "opt": ["score"], "t5": ["classification_head"]}


def read_rows(settings: dict[str, Any], data_root: str) -> tuple[list[Any], list[Any], int]:
    """adaptlab's training rows, all rows that it answers, and the number of classes."""
    from adaptlab.config import TaskConfig
    from adaptlab.tasks import find_task
    from adaptlab.tasks._base import DataAccess

    sizes = {key: settings[key] for key in ("train_examples", "eval_examples") if key in settings}
    config = TaskConfig(name=settings["task"], **sizes)
    data = find_task(config.name).load(config, DataAccess(data_root=data_root))
    return list(data.train), [*data.select, *(r for rows in data.report.values() for r in rows)], len(data.labels)


def adapted(model: Any, method: str, total_steps: int) -> Any:
    """``model`` with what ``method`` trains, at adaptlab's own defaults."""
    import peft

    family = model.config.model_type
    if method in ("head", "top-layers"):
        model.requires_grad_(False)
        top = f"encoder.layer.{model.config.num_hidden_layers - 1}."
        for name, parameter in model.named_parameters():
            trained = name.startswith("classifier") or (method == "top-layers" and top in name)
            parameter.requires_grad_(trained)
        return model
    common = {"task_type": "SEQ_CLS", "target_modules": _TARGETS[family], "modules_to_save": _HEADS[family]}
    configs: dict[str, Any] = {
        "lora": lambda: peft.LoraConfig(r=8, lora_alpha=16, **common),
        "ia3": lambda: peft.IA3Config(feedforward_modules=[], **common),
        "loha": lambda: peft.LoHaConfig(r=8, alpha=8, **common),
        "adalora": lambda: peft.AdaLoraConfig(
            init_r=12, target_r=8, lora_alpha=16, total_step=total_steps, tinit=total_steps // 10,
            tfinal=total_steps // 3, **common,
        ),
    }  # fmt: skip
    return peft.get_peft_model(model, configs[method]())


def train_run(
    method: str, seed: int, model: str, settings: dict[str, Any], *, data_root: str, device: str, folder: Path
) -> tuple[float, float]:
    """Accuracy over all answered rows, and seconds of training."""
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from adaptlab.methods import registry

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    train, answered, labels = read_rows(settings, data_root)

    def tokenised(rows: list[Any]) -> Dataset:
        data = Dataset.from_dict({"text": [row.texts[0] for row in rows], "label": [row.label for row in rows]})
        data = data.map(
            lambda b: tokenizer(b["text"], max_length=settings["max_length"], truncation=True), batched=True
        )
        return data.add_column("length", [len(ids) for ids in data["input_ids"]])

    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=labels, dtype="float32")
    base.config.pad_token_id = tokenizer.pad_token_id
    batch_size = settings["batch_size"]
    total_steps = -(-len(train) // batch_size) * int(settings["epochs"])
    trainer = Trainer(
        model=adapted(base, method, total_steps),
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=128,
            num_train_epochs=settings["epochs"],
            learning_rate=registry.get(method).learning_rates.default,
            warmup_steps=0.06,  # below 1 it is a share of all steps
            lr_scheduler_type="linear",
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            bf16=True,
            optim="adamw_torch_fused",
            use_cpu=device == "cpu",
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=tokenised(train),
        eval_dataset=tokenised(answered),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda answers: {"accuracy": float((_logits(answers).argmax(axis=1) == answers[1]).mean())},
    )
    if method == "adalora":
        trainer.add_callback(_allocation())
    before = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - before
    accuracy = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry][-1]
    trainer.save_model()
    return accuracy, seconds


def _logits(answers: Any) -> Any:
    """T5's answers come with its encoder's states."""
    return answers[0][0] if isinstance(answers[0], tuple) else answers[0]


def _allocation() -> Any:
    """AdaLoRA's ranks fall only if somebody asks for it after every step."""
    from transformers import TrainerCallback

    class Allocation(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            model.base_model.update_and_allocate(state.global_step + 1)

    return Allocation()
