"""Secrets stay where they are, names cannot leave the study, and nothing that is read runs code unless asked."""

from __future__ import annotations

import ast
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptlab import api
from adaptlab.config import (
    ExecutionConfig,
    MethodConfig,
    ModelConfig,
    RunConfig,
    StudyConfig,
    TaskConfig,
)
from adaptlab.errors import StudyError
from adaptlab.launchers import local
from adaptlab.report import write_report
from adaptlab.runs.files import scrub
from adaptlab.runs.job import FILE, Job, read_job, write_job
from adaptlab.runs.store import RunFolder, StudyFolder, safe_name
from adaptlab.tracking import _configuration, _settings
from tests.integration.conftest import write_table
from tests.source_tree import python_files

IN_THE_ENVIRONMENT = "planted-value-of-a-variable"
BY_ITS_LOOK = "hf_PlantedTokenByItsLook"
SECRETS = (IN_THE_ENVIRONMENT, BY_ITS_LOOK)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_API_KEY", IN_THE_ENVIRONMENT)


def told(folder: Path) -> list[str]:
    """Every file, and every name of one, in which a secret stands."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.name.encode() + (_content(path) if path.is_file() else b"")
        found += [f"{path.relative_to(folder)}: {secret}" for secret in SECRETS if secret.encode() in content]
    return found


def _content(path: Path) -> bytes:
    if path.suffix != ".parquet":
        return path.read_bytes()
    import pyarrow.parquet as pq

    return str(pq.read_table(path).to_pylist()).encode()


def test_planted_secrets_are_in_no_file_of_a_study(
    planted: None, tiny_model_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RunFolder.write_predictions

    def failing(folder: RunFolder, *arguments: Any) -> None:
        if "fails" in folder.name:
            raise RuntimeError(f"401 for https://ada:{BY_ITS_LOOK}@hub.example with {IN_THE_ENVIRONMENT}")
        write(folder, *arguments)

    monkeypatch.setattr(RunFolder, "write_predictions", failing)
    folder = tmp_path / f"data-{IN_THE_ENVIRONMENT}"
    folder.mkdir()
    table = write_table(folder / f"weather-{BY_ITS_LOOK}.csv", rows=60)
    table.write_text(table.read_text().replace(" 1,", f" {BY_ITS_LOOK} {IN_THE_ENVIRONMENT} 1,"), encoding="utf-8")
    study = api.study_of(
        model=str(tiny_model_folder("bert")), task=str(table), steps=2, batch_size=4, eval_every=1, learning_rate=1e-3,
        seeds=1,
        methods=[
            {"name": "lora", "label": f"lora {BY_ITS_LOOK}"},
            {"name": "lora", "label": "fails", "r": 2},
        ],
        execution={"device": "cpu", "threads": 1, "keep_weights": "all", "data_root": str(folder), "measure": "run"},
    )  # fmt: skip
    out = tmp_path / "out"
    result = api.compare(study, out=out)
    assert sorted(record.status for record in result.records) == ["failed", "finished"]
    write_report([out])
    assert list((out / "report").glob("*.html"))
    assert told(out) == []


def test_the_search_would_find_a_secret(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'"{BY_ITS_LOOK}"')
    (tmp_path / f"b-{IN_THE_ENVIRONMENT}").mkdir()
    assert len(told(tmp_path)) == 2


def run_config(**keys: Any) -> RunConfig:
    parts: dict[str, Any] = {
        "model": ModelConfig(id=f"/models/{IN_THE_ENVIRONMENT}"),
        "task": TaskConfig(name=f"/data/{BY_ITS_LOOK}.csv"),
        "method": MethodConfig(name="lora", label=BY_ITS_LOOK, options={"note": IN_THE_ENVIRONMENT}),
    }
    return RunConfig(**{**parts, **keys})


def test_trackers_are_told_no_secret(planted: None, tmp_path: Path) -> None:
    run = cast(Any, SimpleNamespace(resolved=run_config(), id="0" * 64))
    execution = ExecutionConfig(track_name=BY_ITS_LOOK, track_group=IN_THE_ENVIRONMENT)
    for told_to in (_configuration(run), *(_settings(n, run, tmp_path, execution) for n in ("wandb", "mlflow"))):
        assert not [secret for secret in SECRETS if secret in str(told_to)]


def test_a_worker_gets_its_paths_whole_and_nobody_else_can_read_them(planted: None, tmp_path: Path) -> None:
    """A job must name the data's folder as it is: so it is the user's alone, and gone when the run is settled."""
    job = Job(id="0" * 64, run=run_config(), given=run_config(), execution=ExecutionConfig())
    write_job(tmp_path, job)
    assert read_job(tmp_path) == job
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_what_a_worker_says_is_logged_without_secrets(
    planted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = f"""
import json, os, sys
for line in sys.stdin:
    print("401 for {BY_ITS_LOOK} with", os.environ["PLANTED_API_KEY"], file=sys.stderr, flush=True)
    print(json.dumps({{"run": json.loads(line)[0].rpartition("/")[2], "status": "failed"}}), flush=True)
"""
    monkeypatch.setattr(local, "command", lambda folders: [sys.executable, "-c", says])
    execution = ExecutionConfig(device="cpu", threads=1, workers=1)
    pool = local.plugin.open(tmp_path, execution, local.plugin.Config(), lambda: False)
    for name in ("a", "b"):
        pool.submit([(None, RunFolder(tmp_path / name))])
        while not pool.wait():
            pass
    pool.close()
    assert (tmp_path / "workers" / "0.log").read_text() == "401 for *** with ***\n" * 2
    assert told(tmp_path) == []


def test_what_a_proxy_or_a_remote_is_told_in_its_address_is_scrubbed() -> None:
    assert scrub("cannot reach https://ada:s3cr3t@hub.example/x") == "cannot reach https://***@hub.example/x"
    assert scrub("mail ada@hub.example or see https://hub.example/a@b") == (
        "mail ada@hub.example or see https://hub.example/a@b"
    )


# --- names and paths ------------------------------------------------------------------------------------------------

_AWKWARD = st.text(max_size=40) | st.lists(st.sampled_from(["..", "/", ".", "~", "\0", "\n", "a", "-"])).map("".join)


@given(_AWKWARD)
def test_a_name_is_one_part_of_a_path(text: str) -> None:
    name = safe_name(text)
    assert Path("/study", name).parent == Path("/study")
    assert name not in (".", "..")
    assert len(Path("/study", name).parts) == 3


@given(_AWKWARD)
def test_no_run_lies_outside_its_study(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    study = StudyFolder(tmp_path_factory.getbasetemp() / "names")
    study.path.mkdir(exist_ok=True)
    for name in (text, f"{text}-01234567"):
        try:
            folder = study.run(name).path
        except StudyError:
            continue
        assert folder.resolve().parent == (study.path / "runs").resolve()


@pytest.mark.parametrize("label", ["../../escaped", "/etc/escaped", "..", "a\0b"])
def test_a_label_of_a_config_stays_in_the_study(label: str, tmp_path: Path) -> None:
    study = StudyFolder.open_or_create(tmp_path / "deep" / "study", StudyConfig(task="sst2", methods=("lora",)))  # type: ignore[arg-type]
    path = study.items_path(label, label)
    assert path.resolve().parent == study.path.resolve() / "items"


# --- what may run ---------------------------------------------------------------------------------------------------

_RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "yaml"}
#: A probe's process is ours, and is told what to measure over a pipe of ours: no file, no network.
_OWN_PIPE = "src/adaptlab/probing.py"
#: Annotations in the source of the installed PEFT, with the names of types alone.
_OF_INSTALLED_CODE = "src/adaptlab/methods/_peft_source.py"


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def dangers(path: Path) -> list[str]:
    """Lines of a source file that would run what they read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{path}:{node.lineno}: imports {n}" for n in names if n.split(".")[0] in _RUNS_CODE]  # type: ignore[attr-defined]
    for name, call in _calls(tree):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        bad = (
            (name in ("eval", "exec", "os.system", "os.popen"))
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (name == "np.load" and given.get("allow_pickle") != "False")
            or given.get("shell") == "True"
            or given.get("trust_remote_code") == "True"
            or (name.endswith("YAML().load"))
            or (name == "YAML" and given.get("typ") == "'unsafe'")
        )
        if bad:
            found.append(f"{path}:{call.lineno}: {name}")
    return found


def test_nothing_that_is_read_runs() -> None:
    found = {danger for path in python_files("src") for danger in dangers(path)}
    allowed = {d for d in found if (_OWN_PIPE in d and "pickle" in d) or (_OF_INSTALLED_CODE in d and ": eval" in d)}
    assert found - allowed == set()
    assert len(allowed) == 2


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from yaml import load", "torch.load(p)", "np.load(p)", "eval(x)", "run(x, shell=True)",
     "AutoModel.from_pretrained(p, trust_remote_code=True)", "YAML(typ='unsafe')"],
)  # fmt: skip
def test_the_scan_sees_a_danger(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(line)
    assert len(dangers(path)) == 1


def test_a_model_runs_and_unpickles_nothing_unless_asked() -> None:
    model = ModelConfig(id="x")
    assert not model.trust_remote_code
    assert not model.allow_pickle
