"""Results of other tools: read as they are, missing things missing, damaged ones named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adaptlab.errors import StudyError
from adaptlab.report import read_studies, write_report
from adaptlab.report.answer import answer
from adaptlab.report.select import RunRow, Selection
from adaptlab.report.tables import results_grid
from adaptlab.runs.importers import read_foreign


def eval_results(accuracy: float, **more: float) -> dict[str, float]:
    return {"epoch": 3.0, "eval_accuracy": accuracy, "eval_loss": 1 - accuracy, "eval_samples": 872, **more}


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods by two tasks by three seeds as people lay them out; one seed is missing, one run has not ended."""
    root = tmp_path_factory.mktemp("others") / "glue-runs"
    for method, better in (("full", 0.02), ("bitfit", 0.0)):
        for seed in (1, 2, 3):
            folder = root / method / "SST-2" / f"seed_{seed}"
            write(folder / "eval_results.json", eval_results(0.9 + better + seed / 1000))
            write(folder / "all_results.json", eval_results(0.9 + better + seed / 1000, train_runtime=100.0 + seed))
            if (method, seed) != ("bitfit", 2):
                correlation = eval_results(0.8) | {"eval_matthews_correlation": 0.5 + better + seed / 1000}
                write(root / method / "cola" / f"seed_{seed}" / "eval_results.json", correlation)
    write(root / "bitfit" / "cola" / "seed_2" / "trainer_state.json", {})
    write(root / "full" / "SST-2" / "seed_1" / "checkpoint-500" / "eval_results.json", eval_results(0.1))
    write(root / "full" / "rte" / "seed_1" / "eval_results.json", '{"eval_accuracy": 0.')
    write(root / "full" / "SST-2" / "seed_1" / "tokenizer.json", {"model": {}})
    return root


@pytest.fixture(scope="module")
def read(tree: Path) -> Selection:
    return read_studies([tree])


def row(selection: Selection, method: str, task: str, seed: int) -> RunRow:
    [found] = [r for r in selection.rows if (r.method, r.task, r.seed) == (method, task, seed)]
    return found


def test_a_tree_of_results_gives_a_run_for_each_folder(read: Selection) -> None:
    assert len(read.rows) == 11
    assert {r.task for r in read.rows} == {"sst2", "cola"}
    full = row(read, "full", "sst2", 2)
    assert full.score == pytest.approx(0.922)
    assert full.primary is not None
    assert (full.primary.name, full.primary.n) == ("accuracy", 872)
    assert full.cost.train_seconds == 102.0
    assert full.parameters is None
    assert row(read, "bitfit", "cola", 1).primary.name == "mcc"  # type: ignore[union-attr]


def test_what_is_missing_is_shown_as_missing(read: Selection) -> None:
    assert read.waiting == ("glue-runs/bitfit/cola/seed_2",)
    [problem] = read.problems
    assert problem.file == "glue-runs/full/rte/seed_1/eval_results.json"
    assert "damaged" in problem.reason
    grid = results_grid(read)
    bitfit = next(line for line in grid.lines if line[0].text == "bitfit")
    texts = dict(zip((column.title for column in grid.columns), (entry.text for entry in bitfit), strict=True))
    assert texts["trained parameters"] == "-"
    assert texts["cola mcc"].startswith("0.502 ±")
    assert any("which may also have chosen the checkpoint" in note for note in grid.notes)
    assert not any("neither trained nor selected" in note for note in grid.notes)


def test_nothing_is_claimed_without_answers(read: Selection) -> None:
    said = answer(read)
    assert "has the best mean" in said.lead
    assert "the answers to single rows are not known" in " ".join((said.lead, *said.details))


def test_the_same_page_is_drawn(tree: Path, tmp_path: Path) -> None:
    paths = write_report([tree], out=tmp_path / "report")
    text = paths.page.read_text()
    assert "bitfit" in text
    assert "transformers&#x27; example scripts" in text
    assert not list(tree.rglob("index.html"))


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("sst2/42", ("sst2", "full", 42)),
        ("lora/sts-b/seed3", ("stsb", "lora", 3)),
        ("MRPC", ("mrpc", "full", 0)),
        ("my-task/seed_1", ("my-task", "full", 1)),
        ("my-task/bitfit/run2", ("my-task", "bitfit", 2)),
        ("method=ia3/task=reviews/seed=7", ("reviews", "ia3", 7)),
        ("ag_news/roberta/lr1e-5/s4", ("ag_news", "roberta-lr1e-5", 4)),
    ],
)
def test_names_are_read_from_folders(tmp_path: Path, path: str, named: tuple[str, str, int]) -> None:
    write(tmp_path / path / "eval_results.json", eval_results(0.5))
    found = read_foreign(tmp_path)
    assert found is not None
    [run] = found.runs
    assert (run.task, run.method, run.seed) == named


def test_an_adapter_beside_the_results_names_method_and_model(tmp_path: Path) -> None:
    folder = tmp_path / "rte" / "seed_1"
    write(folder / "eval_results.json", eval_results(0.7) | {"eval_accuracy_mm": 0.6, "eval_samples_mm": 10})
    write(folder / "adapter_config.json", {"peft_type": "PREFIX_TUNING", "base_model_name_or_path": "bert-base"})
    write(folder / "adapter_model.safetensors", "12345678")
    [run] = read_studies([tmp_path]).rows
    assert (run.method, run.method_name, run.model) == ("prefix-tuning", "prefix-tuning", "bert-base")
    assert run.cost.adapter_bytes == 8
    assert run.metrics["validation_mismatched"] == {"accuracy": 0.6, "n": 10.0}


def peft_result(**train: Any) -> dict[str, Any]:
    metrics = [
        {"step": 250 * i, "valid accuracy": i / 10, "train loss": 1.0, "train samples": 1000 * i, "train time": 20.0,
         "eval time": 5.0, "tokens / sec": 100.0}
        for i in (1, 2)
    ]  # fmt: skip
    metrics.append({"step": 500, "test accuracy": 0.25, "train loss": 1.0, "train samples": 2000, "forgetting": 0.1})
    return {
        "run_info": {
            "experiment_name": "lora/tiny-rank4", "created_at": "2026-07-14", "error_msg": "",
            "train_config": {"model_id": "org/tiny", "seed": 3, "max_steps": 500, "optimizer_kwargs": {"lr": 1e-4}},
            "peft_config": {"peft_type": "LORA", "r": 4},
        },
        "train_info": {
            "status": "success", "accelerator_memory_max": 2_000_000, "file_size": 50, "num_trainable_params": 10,
            "num_total_params": 1000, "metrics": metrics, **train,
        },
        "meta_info": {
            "dataset_info": {"metamath": {}, "gsm8k": {}}, "package_info": {"torch-version": "2.13.0"},
            "system_info": {"accelerator": "NVIDIA L40S"},
        },
    }  # fmt: skip


def test_a_result_of_pefts_suite_is_a_run_with_its_curve(tmp_path: Path) -> None:
    file = write(tmp_path / "lora.json", peft_result())
    write(tmp_path / "other.json", {"hello": 1})
    [run] = read_studies([tmp_path]).rows
    assert (run.task, run.model, run.method, run.method_name, run.seed) == (
        "metamath/gsm8k", "org/tiny", "lora-rank4", "lora", 3,
    )  # fmt: skip
    assert run.primary is not None
    assert (run.score, run.primary.n, run.primary.stderr) == (0.25, None, None)
    assert run.metrics == {"test": {"accuracy": 0.25, "forgetting": 0.1}}
    assert (run.cost.train_seconds, run.cost.eval_seconds, run.cost.train_flops) == (40.0, 10.0, None)
    assert [(point.step, point.seconds, point.tokens) for point in run.curve.points] == [
        (250, 20.0, 2000), (500, 40.0, 4000),
    ]  # fmt: skip
    assert [point.metrics for point in run.curve.points] == [{"accuracy": 0.1}, {"accuracy": 0.2}]
    assert run.environment.device == "cuda: NVIDIA L40S"
    assert read_studies([file]).rows[0].id == run.id


@pytest.mark.parametrize(
    ("document", "status", "trainable"),
    [
        (peft_result(status="failed", metrics=[]), "failed", 10),
        (peft_result(status="canceled"), "interrupted", 10),
        (peft_result(num_trainable_params=None, accelerator_memory_max=None, metrics=None), "finished", None),
    ],
    ids=["failed", "cancelled", "without statistics"],
)
def test_missing_statistics_stay_missing(tmp_path: Path, document: Any, status: str, trainable: int | None) -> None:
    write(tmp_path / "a.json", document)
    [run] = read_studies([tmp_path]).rows
    assert run.status == status
    assert run.score is None
    assert (run.parameters.trainable if run.parameters else None) == trainable
    assert results_grid(read_studies([tmp_path])).lines


def test_damaged_results_are_named_and_the_others_read(tmp_path: Path) -> None:
    write(tmp_path / "whole.json", peft_result())
    write(tmp_path / "cut.json", json.dumps(peft_result())[:300])
    write(tmp_path / "half.json", {"run_info": {}, "train_info": []})
    read = read_studies([tmp_path])
    assert len(read.rows) == 1
    reasons = {problem.file.rpartition("/")[2]: problem.reason for problem in read.problems}
    assert reasons["half.json"] == "it has no train_info and no meta_info"
    assert "damaged" in reasons["cut.json"]


def test_a_folder_with_nothing_says_what_could_be_there(tmp_path: Path) -> None:
    write(tmp_path / "notes.json", {"a": 1})
    with pytest.raises(StudyError, match=r"eval_results\.json"):
        read_studies([tmp_path])
    with pytest.raises(StudyError, match="There is no folder"):
        read_studies([tmp_path / "nowhere"])


def test_the_real_samples_draw_the_page(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "foreign" / "peft-method-comparison"
    selection = read_studies([folder])
    assert len(selection.rows) == 12
    assert {r.task for r in selection.rows} == {"metamath/gsm8k"}
    best = max(selection.rows, key=lambda r: r.score or 0)
    assert (best.method, best.parameters.trainable if best.parameters else None) == ("lora-rank64", 18_350_080)
    assert all(len(r.curve.points) == 20 for r in selection.rows)
    page = write_report([folder], out=tmp_path / "report").page.read_text()
    assert "prefixtuning-tokens50-init_prefix-lr_0.005" in page
