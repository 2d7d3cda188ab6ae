"""What goes with an exported model: its card for people, and the study file that repeats the run."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptlab.config import ModelConfig, RunConfig, TrainingConfig
from adaptlab.models.identity import locate
from adaptlab.runs.record import DataPart, Record

#: Half a 95 % interval of a normal distribution, in standard errors.
_Z = 1.96


def run_file(run: RunConfig) -> str:
    """The run as a study file for ``adaptlab train``: what was given, with no path of this machine in it."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = False
    text = io.StringIO()
    yaml.dump(_document(run), text)
    return text.getvalue()


def _document(run: RunConfig) -> dict[str, Any]:
    plain = run.model_dump(mode="json", exclude_defaults=True)
    model, task, method = plain.pop("model"), plain.pop("task"), plain.pop("method")
    of_study = {key: task.pop(key) for key in list(task) if key in _OF_STUDY}
    # A list where a value stands makes a grid: an option that is a list is a list of one list.
    options = {key: [value] if isinstance(value, list) else value for key, value in method.pop("options", {}).items()}
    training = plain.pop("training", {})
    plain |= {key: value for key, value in plain.pop("answering", {}).items() if key != "stop"}
    if run.answering.stop is not None:
        plain["stop"] = list(run.answering.stop)
    if run.training.epochs is None:
        training.pop("epochs", None)
    elif run.training.steps is None:
        training["epochs"] = training.get("epochs", TrainingConfig().epochs)
    else:
        training.pop("epochs", None)
    return {
        "model": {**model, "id": shareable(run.model.id)},
        "task": {**task, "name": shareable(run.task.name)},
        "methods": [{**method, **options}],
        "seeds": [plain.pop("seed", 0)],
        **of_study,
        **plain,
        **training,
    }


_OF_STUDY = (
    "train_examples",
    "unlabelled_examples",
    "balanced",
    "select_examples",
    "eval_examples",
    "data_seed",
    "max_length",
)


def shareable(name: str) -> str:
    """A name without the folders of this machine: a path's last part."""
    return Path(name).name if name.startswith(("/", ".", "~", "\\")) or Path(name).exists() else name


def licence_of(model: ModelConfig) -> str | None:
    """The licence that the base's own card states, or ``None``."""
    folder = locate(model).folder
    path = _hub_card(model) if folder is None else folder / "README.md"
    try:
        text = path.read_text(encoding="utf-8") if path is not None else ""
    except (OSError, UnicodeDecodeError):
        return None
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", front[1], re.MULTILINE) if front else None
    return found[1] if found else None


def _hub_card(model: ModelConfig) -> Path | None:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model.id, "README.md", revision=model.revision))
    except Exception:  # no card, no connection: then the licence is not known
        return None


def card(record: Record, export: Mapping[str, Any], *, version: str) -> str:
    """README.md of an exported folder."""
    assert record.data is not None
    return "\n".join([*_front(export), "", *_body(record, export, version), ""])


def _front(export: Mapping[str, Any]) -> list[str]:
    base = export["base"]
    lines = ["---", f"library_name: {'transformers' if export['form'] == 'model' else 'peft'}"]
    if "/" in base["name"]:
        lines.append(f"base_model: {base['name']}")
    if base["licence"]:
        lines.append(f"license: {base['licence']}")
    return [*lines, f"pipeline_tag: {_PIPELINES[export['class']]}", "tags:", "- adaptlab", "---"]


_PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSeq2SeqLM": "text2text-generation",
}


def _body(record: Record, export: Mapping[str, Any], version: str) -> list[str]:
    data, base, check = record.data, export["base"], export["check"]
    assert data is not None
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.sizes.items())
    agreement = "" if check["agreement"] is None else f", {check['agreement']:.1%} the same answers"
    lines = [
        f"# {base['name'].rpartition('/')[2]}, adapted to {export['task']} with {export['method']}",
        "",
        f"- **Base:** {base['name']}, {base['weights']}{_bits(base)}; licence: "
        f"{base['licence'] or 'not stated where it was found'}",
        f"- **Data:** {data.id}{f', revision {data.revision}' if data.revision else ''}; rows: {sizes}",
        f"- **Answers:** {_answers(data, export)}",
        f"- **Score:** {_score(record)}",
        f"- **Weights:** {export['what']}, {export['dtype']}",
        f"- **Checked:** loaded again in a fresh process with {' and '.join(check['imports'])} only, on "
        f"{check['rows']} rows: largest logit difference {check['largest_logit_difference']:.2g}{agreement}",
        "",
        "## Use",
        "",
        "```python",
        *_usage(export),
        "```",
        "",
        *_prompt(export),
        "## Scores on rows that nothing was chosen by",
        "",
    ]
    names = list(dict.fromkeys(name for values in record.metrics.values() for name in values))
    lines += [f"| | {' | '.join(record.metrics)} |", f"|---|{'---|' * len(record.metrics)}"]
    lines += [f"| {name} | {' | '.join(_cell(name, values) for values in record.metrics.values())} |" for name in names]
    return [
        *lines,
        "",
        "## The run again",
        "",
        f"`run.yaml` is the run's study file. Where it names a folder or a file, that lies beside it ({version}).",
        "",
        "```",
        "adaptlab train run.yaml",
        "```",
    ]


def _answers(data: DataPart, export: Mapping[str, Any]) -> str:
    if export["readout"] == "head":
        return ", ".join(data.labels) or "a number"
    how = "written freely" if export["readout"] == "generate" else "the likeliest of the words below"
    what = {
        "classification": ", ".join(data.labels),
        "regression": "a number",
        "multiple-choice": "one of a row's options",
    }
    return f"{what.get(data.kind or '', 'a text')}, {how}"


def _prompt(export: Mapping[str, Any]) -> list[str]:
    """The prompt that the model was asked with, where there is one."""
    prompt = export["prompt"]
    if prompt is None:
        return []
    lines = ["## Prompt", "", "```", prompt["template"], "```", ""]
    if prompt["instruction"]:
        lines[2:2] = ["```", prompt["instruction"], "```", "", "then"]
    words = prompt["answers"]
    if isinstance(words, list):
        pairs = ", ".join(f"{label}: `{word}`" for label, word in zip(export["labels"], words, strict=True))
        lines += [f"Words: {pairs}.", ""]
    elif words:
        lines += [f"Answer: `{words}`.", ""]
    return lines


def _bits(base: Mapping[str, Any]) -> str:
    return "" if base["quantize"] == "none" else f", in {base['quantize']} while it was trained"


def _cell(name: str, values: Mapping[str, float]) -> str:
    if name not in values:
        return "-"
    return f"{values[name]:.0f}" if name == "n" else f"{values[name]:.4f}"


def _score(record: Record) -> str:
    primary = record.primary
    if primary is None:
        return "none was taken"
    text = f"{primary.name} {primary.value:.4f}"
    if primary.stderr is not None:
        low, high = primary.value - _Z * primary.stderr, primary.value + _Z * primary.stderr
        text += f", 95 % interval {low:.4f} to {high:.4f} over the items"
    return f"{text} ({primary.evaluation_set}, {primary.n} rows, one run)"


def _usage(export: Mapping[str, Any]) -> list[str]:
    base, outputs = export["base"]["name"], export["outputs"]
    if export["form"] == "adaptlab":
        return [
            "# This method is adaptlab's own: transformers and peft alone cannot load it.",
            f"# adaptlab evaluate --adapter FOLDER --model {base} --task {export['task']}",
        ]
    kind, count = export["class"], "" if outputs is None else f", num_labels={outputs}"
    lines = [f"from transformers import {kind}, AutoTokenizer", ""]
    if export["form"] == "model":
        lines.append(f'model = {kind}.from_pretrained("FOLDER")')
    else:
        lines[0:0] = ["from peft import PeftModel"]
        more = ""
        if export["base"]["quantization"]:  # the base as it was while the adapter was trained
            lines[1] = lines[1].replace("AutoTokenizer", "AutoTokenizer, BitsAndBytesConfig")
            told = ", ".join(f"{key}={value!r}" for key, value in export["base"]["quantization"].items())
            lines.append(f"bits = BitsAndBytesConfig({told})")
            more = ", quantization_config=bits"
        lines.append(f'base = {kind}.from_pretrained("{base}"{count}{more})')
        lines.append('model = PeftModel.from_pretrained(base, "FOLDER")')
    return [*lines, 'tokenizer = AutoTokenizer.from_pretrained("FOLDER")']
