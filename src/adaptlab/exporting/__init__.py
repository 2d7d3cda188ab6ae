"""A finished run's model for others: an adapter or a whole model, checked in a fresh process, with its card.

load the run -> its logits on real rows -> write the folder -> the same rows in a process that knows only the folder
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptlab import readouts
from adaptlab.errors import ConfigError, HubError, ModelError
from adaptlab.exporting import card, forms
from adaptlab.exporting.checks import Check, HeadCheck, WordsCheck
from adaptlab.exporting.forms import Form
from adaptlab.merging import merged
from adaptlab.models.identity import fetch
from adaptlab.predictor import Text, restore, setting_of, unlabelled
from adaptlab.resolve import device as resolve_device
from adaptlab.runs.record import Record
from adaptlab.runs.store import RunFolder, StudyFolder
from adaptlab.study.expand import task_label
from adaptlab.tasks import load_task
from adaptlab.tasks._base import DataAccess, Example

if TYPE_CHECKING:
    from adaptlab.models.load import Base

__all__ = ["CHECK_ROWS", "Export", "export"]

#: Rows that an export is checked on, at most.
CHECK_ROWS = 64

_WHAT: dict[Form, str] = {
    "model": "a whole model for transformers",
    "peft": "an adapter for peft",
    "adaptlab": "an adapter for adaptlab (transformers and peft alone cannot load it)",
}


@dataclass(frozen=True, slots=True)
class Export:
    """What :func:`export` wrote.

    Attributes:
        document: what export.json holds; ``check`` has the rows, the largest logit difference and the agreement.
        notes: sentences for whoever uses the export, e.g. that it answers some rows otherwise than the run.
        url: where it was pushed, or ``None``.
    """

    path: Path
    document: dict[str, Any]
    notes: tuple[str, ...]
    url: str | None = None


def export(
    run: tuple[RunFolder, Record],
    to: Path,
    *,
    merge: bool = False,
    push: str | None = None,
    texts: Sequence[Text] | None = None,
    model: str | None = None,
    device: str = "auto",
    data_root: str | None = None,
) -> Export:
    """Write ``run``'s model to the new or empty folder ``to``; either all of it is there afterwards or nothing.

    Args:
        merge: a plain transformers folder, in the dtype of the base's checkpoint, in place of an adapter.
        push: a hub id to upload to; a repository that is not there yet is made private.
        texts: rows to check the export on; by default the first that the run was reported on.
        model: where the base lies now, if it is not where it was.
        data_root: where a multiple-choice task's rows are, whose options no study keeps.

    Raises:
        ConfigError: the folder is not empty, the method cannot be merged, or there are no rows to check on.
        ModelError: the base or the run's weights are not usable, or the export does not load in a fresh process.
        HubError: the upload failed; the folder is there.
    """
    folder, record = run
    _refuse_occupied(to)
    _refuse_bad_id(push)
    rows, source = _rows(folder, record, data_root) if texts is None else _given(texts, record)
    assert record.data is not None
    config, labels, regression = record.config.resolved, tuple(record.data.labels), record.data.kind == "regression"
    in_words = config.readout != "head"
    on = resolve_device(device)
    base, attached = restore(run, device=device, model=model)
    check: Check
    if in_words:
        readout = readouts.build(config.readout, setting_of(record, base, data_root))
        check = WordsCheck(base, attached.model, readout, rows, on)
    else:
        length = int(config.task.max_length)
        how: dict[str, Any] = {"labels": labels, "regression": regression, "max_length": length, "device": on}
        check = HeadCheck(base, attached.model, rows, **how)
    notes: list[str] = []
    form: Form = "model" if merge else forms.form_of(folder.adapter)
    with _new_folder(to) as new:
        dtype = "float32"
        document: dict[str, Any] = {}
        if form == "model":
            whole = merged(attached, base)
            document["merge_difference"] = check.difference(whole)
            dtype = forms.save_model(whole, base, () if in_words else labels, new)
        else:
            forms.save_adapter(folder.adapter, new, _revision(record))
        base.tokenizer.save_pretrained(new)
        alone = attached.method.alone_in_peft(base.layout) if form == "peft" else None
        notes += [] if alone is None else [alone]
        task = _task(form, new, base, record, on) | check.asked()
        if alone is not None:
            task["rows_at_once"] = 1
        answered = _answer_in_fresh_process(task)
        document |= {
            "what": _WHAT[form],
            "form": form,
            "dtype": dtype,
            "run": record.name,
            "id": record.id,
            "base": {
                "name": base.model.name_or_path,
                "weights": record.config.identity.weights,
                "quantize": config.model.quantize,
                "quantization": task["quantization"] if form == "peft" else None,
                "licence": card.licence_of(base.config),
            },
            "method": config.method.label,
            "task": task_label(config.task.name),
            "labels": list(labels),
            "outputs": None if in_words else task["outputs"],
            "regression": regression,
            "max_length": int(config.task.max_length),
            "readout": config.readout,
            "class": task["class"],
            "prompt": None if record.data.prompt is None else record.data.prompt.model_dump(mode="json"),
            "check": {
                "source": source,
                "rows": len(rows),
                "imports": answered["imports"],
                **check.compare(answered),
            },
        }
        notes += [*_dequantised(document), *_doubts(document)]
        _write_documents(new, record, document)
    url = None if push is None else _push(to, push, base.config.id)
    return Export(to, document, tuple(notes), url)


def _given(texts: Sequence[Text], record: Record) -> tuple[list[Example], str]:
    assert record.data is not None
    if record.data.kind == "multiple-choice":
        raise ConfigError(
            "Texts alone have no options to choose from: leave --input out, and the task's rows are taken."
        )
    return unlabelled(texts[:CHECK_ROWS]), "the given texts"


def _rows(folder: RunFolder, record: Record, data_root: str | None) -> tuple[list[Example], str]:
    """The first rows of the run's first report set, as its study keeps them, and what to call them.

    Options are not kept, and a tab in a text looks like one between two: such rows are read again from their source.
    """
    import pyarrow.parquet as pq

    assert record.data is not None
    config = record.config.resolved.task
    task = task_label(config.name)
    name, predictions = next(iter(folder.read_predictions().items()), ("", None))
    items = StudyFolder(folder.path.resolve().parent.parent).items_path(task, name)
    if predictions is None or not items.is_file():
        raise ConfigError(
            f"There are no rows to check the export on: the study of {record.name} keeps none. Give some with --input."
        )
    kept = {row["id"]: row["text"].split("\t") for row in pq.read_table(items).to_pylist()}
    texts = [kept[id_] for id_ in predictions.ids[:CHECK_ROWS]]
    columns = len(record.data.columns) or max(map(len, texts))
    chooses = record.data.kind == "multiple-choice"
    if columns == 1 and not chooses:
        return unlabelled(["\t".join(parts) for parts in texts]), f"{task} ({name})"
    if not chooses and all(len(parts) == columns for parts in texts):
        return [Example(str(i), tuple(parts), 0) for i, parts in enumerate(texts)], f"{task} ({name})"
    again = load_task(config, DataAccess(data_root=data_root)).report[name]
    return list(again[:CHECK_ROWS]), f"{task} ({name})"


def _task(form: Form, folder: Path, base: Base, record: Record, device: str) -> dict[str, Any]:
    """What the fresh process is told of the folder."""
    assert record.data is not None
    regression = record.data.kind == "regression"
    return {
        "form": form,
        "readout": record.config.resolved.readout,
        "class": _class_of(base, record.config.resolved.readout),
        "folder": str(folder.resolve()),
        "base": str(fetch(base.config).resolve()),
        "trust_remote_code": base.config.trust_remote_code,
        "allow_pickle": base.config.allow_pickle,
        "quantize": base.config.quantize,
        "quantization": _quantization(base),
        "outputs": 1 if regression else len(record.data.labels),
        "regression": regression,
        "pad_token_id": base.tokenizer.pad_token_id,
        "device": device,
    }


def _class_of(base: Base, readout: str) -> str:
    """What transformers calls the models that answer so."""
    if readout == "head":
        return "AutoModelForSequenceClassification"
    return "AutoModelForSeq2SeqLM" if base.layout.kind == "encoder-decoder" else "AutoModelForCausalLM"


def _quantization(base: Base) -> dict[str, Any] | None:
    """What transformers has to be told to load the base as it was while the run was trained."""
    if base.config.quantize == "none":
        return None
    from adaptlab.models import quantize

    return quantize.settings(base.model, base.layout, base.config)


def _answer_in_fresh_process(task: dict[str, Any]) -> dict[str, Any]:
    """The logits that the exported folder gives where nothing of this process is loaded."""
    script = Path(__file__).with_name("fresh.py")
    # -P: the script's own folder is no place to import from.
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},  # what was written has to be enough
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(f"The export does not load in a fresh process ({last}): nothing was written.")
    answered: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answered


def _dequantised(document: dict[str, Any]) -> list[str]:
    how = document["base"]["quantize"]
    if how == "none" or document["form"] != "model":
        return []
    return [
        f"The base was stored in {how}; the merged model has the numbers that its codes stand for, in "
        f"{document['dtype']}. Quantising it again would round what was merged: compare before you do."
    ]


def _doubts(document: dict[str, Any]) -> list[str]:
    check = document["check"]
    tokens = [] if check.get("same_tokens", True) else ["The exported tokenizer cuts texts otherwise than the run's."]
    if check["agreement"] in (None, 1.0):
        return tokens
    differ = round((1 - check["agreement"]) * check["rows"])
    merging = document.get("merge_difference", 0.0)
    why = f"merging alone moves a logit by {merging:.2g}" if merging > check["largest_logit_difference"] / 2 else (
        f"its weights are {document['dtype']}, the run's were float32" if document["dtype"] != "float32" else
        "what was loaded is not what was trained"
    )  # fmt: skip
    return [*tokens, f"The export answers {differ} of {check['rows']} rows otherwise than the run: {why}."]


def _write_documents(folder: Path, record: Record, document: dict[str, Any]) -> None:
    text = card.card(record, document, version=f"adaptlab {version('adaptlab')}")
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "run.yaml").write_text(card.run_file(record.config.given), encoding="utf-8")
    shown = json.dumps(document, indent=1, ensure_ascii=False)
    (folder / "export.json").write_text(shown + "\n", encoding="utf-8")


def _revision(record: Record) -> str | None:
    kind, _, value = record.config.identity.weights.partition(":")
    return value if kind == "revision" else None


def _refuse_occupied(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} is {'not empty' if to.is_dir() else 'a file'}: give a new or empty folder for --to.")


@contextmanager
def _new_folder(to: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``to`` when all went well and is gone when not."""
    new = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        _make_folder(new)
        yield new
        if to.is_dir():
            to.rmdir()  # it is empty; if no longer, this fails and nothing is lost
        new.rename(to)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"Cannot write to {path.parent} ({error.strerror}): give another folder for --to.") from error


def _refuse_bad_id(push: str | None) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined,unused-ignore]

    try:
        if push is not None:
            validate_repo_id(push)
    except HFValidationError as error:
        raise ConfigError(f"--push {push}: a hub id is NAME or OWNER/NAME ({error}).") from error


def _push(folder: Path, repository: str, base: str) -> str:
    """Upload ``folder`` to the hub; returns the repository's page."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=f"adaptlab: {base}, adapted")
    except Exception as error:  # the client's own errors, and those of its HTTP library
        reason = (str(error).strip().splitlines() or [""])[0]
        raise HubError(
            f"{folder} is written, but the upload to {repository} failed ({type(error).__name__}: {reason}): log in "
            f"with `hf auth login` and a token that may write, then `hf upload {repository} {folder}`."
        ) from error
    return str(url)
