"""The solo probe: a fresh process measures what a run in a shared one cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from adaptlab import api, probing
from adaptlab.costing import training_flops
from adaptlab.measure.clock import timed
from adaptlab.measure.flops import count
from adaptlab.measure.memory import MemoryMeter, _Sampler
from adaptlab.probing import Probe, ProbeError
from adaptlab.readouts import teaching
from adaptlab.resolve import Resolver
from adaptlab.study.expand import expand
from adaptlab.workshop import Workshop, read_out, set_up

_MEGABYTE = 1_000_000


@pytest.fixture
def study(tiny_model_folder: Callable[[str], Path]) -> Callable[..., object]:
    def build(**more: object) -> object:
        settings = {
            "task": "stdlib-docs", "methods": ["lora"], "seeds": 1, "batch_size": 8, "steps": 2, "train_examples": 64,
            "select_examples": 16, "eval_examples": 16, "max_length": 40, "model": str(tiny_model_folder("bert")),
        }  # fmt: skip
        return api.study_of(**{**settings, **more})

    return build


@pytest.fixture(autouse=True)
def _own_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def _server_ends() -> Iterator[None]:
    yield
    if probing.Server._one is not None:
        probing.Server._one._process.kill()


def held_and_freed() -> None:
    torch.ones(10 * _MEGABYTE)


def test_a_peak_is_seen_after_its_memory_is_free_again() -> None:
    meter = MemoryMeter("cpu")
    held_and_freed()
    assert meter.peak().allocated >= 39 * _MEGABYTE
    meter.reset()
    assert meter.peak().allocated < 30 * _MEGABYTE
    assert meter.peak().reserved is None


def test_a_peak_is_seen_by_sampling_too() -> None:
    sampler = _Sampler()
    before = sampler._most
    held = torch.ones(10 * _MEGABYTE)
    assert sampler.stop() - before >= 39 * _MEGABYTE
    assert len(held)


def test_a_clock_has_a_spread() -> None:
    calls: list[int] = []
    timing = timed(lambda: calls.append(1), "cpu", least=3, most=5, seconds=1.0)
    assert timing.n == len(calls) == 5
    assert timing.std is not None
    assert timing.joules is None


def test_a_probe_serves_every_seed_and_rate(study: Callable[..., object], tmp_path: Path) -> None:
    result = api.compare(study(seeds=2, learning_rate=[1e-3, 1e-4], execution={"measure": "probe"}), out=tmp_path / "s")
    costs = [record.cost for record in result.records]
    assert len(costs) == 4
    assert {cost.clock_source for cost in costs} == {cost.memory_source for cost in costs} == {"probe"}
    assert len({(cost.peak_memory_bytes, cost.step_seconds) for cost in costs}) == 1
    assert costs[0].peak_memory_bytes > 0
    assert costs[0].eval_memory_bytes > 0
    assert 0 < costs[0].step_seconds < 10
    assert 0 < costs[0].answer_seconds < 10
    assert 0 < costs[0].merged_answer_seconds < 10
    assert all(set(cost.set_seconds) == {"test"} for cost in costs)
    assert all(0 < cost.set_seconds["test"] <= cost.eval_seconds for cost in costs)
    assert len(list((tmp_path / "cache" / "probes").iterdir())) == 1


@pytest.mark.parametrize(("method", "merges"), [("head", False), ("parallel-adapter", False), ("ia3", True)])
def test_what_cannot_be_merged_has_no_merged_latency(study: Callable[..., object], method: str, merges: bool) -> None:
    config = study(methods=[method])
    (run,) = expand(config)
    resolved = Resolver(config.execution).resolve(run)
    rows = tuple(resolved.data.train[:8])
    found = probing.measure(probing.Request(resolved, config.execution, 1, rows, rows, rows, single=rows[:1]))
    assert found.answer_seconds is not None
    assert (found.merged_answer_seconds is not None) is merges


def test_runs_that_inherit_rows_have_a_clock(study: Callable[..., object], tmp_path: Path) -> None:
    records = api.compare(study(methods=["head"], seeds=2, steps=16), out=tmp_path / "s").records
    first, second = records
    assert "inherited_seconds" not in first.training
    assert second.cost.clock_source == "run"
    assert 0 < second.training["inherited_seconds"] < second.cost.train_seconds + second.cost.eval_seconds


@pytest.mark.parametrize("how", ["auto", "run"])
def test_a_small_models_run_keeps_its_own_clock(study: Callable[..., object], tmp_path: Path, how: str) -> None:
    (record,) = api.compare(study(execution={"measure": how}), out=tmp_path / "s").records
    assert record.cost.clock_source == "run"
    assert record.cost.step_seconds_std is not None
    assert record.cost.memory_source is record.cost.peak_memory_bytes is None


def test_a_probe_that_dies_is_a_warning(
    study: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object) -> Probe:
        raise ProbeError("Memory and time could not be measured alone: its process was killed.")

    monkeypatch.setattr(probing, "probe", dead)
    (record,) = api.compare(study(execution={"measure": "probe"}), out=tmp_path / "s").records
    assert record.status == "finished"
    assert record.cost.memory_source is None
    assert "could not be measured alone" in " ".join(record.warnings)


def test_the_server_outlives_a_request_that_fails(study: Callable[..., object]) -> None:
    config = study()
    (run,) = expand(config)
    resolved = Resolver(config.execution).resolve(run)
    rows = tuple(resolved.data.train[:8])
    good = probing.Request(resolved, config.execution, 1, rows, rows, rows)
    bad = probing.Request(resolved, config.execution, 1, (), (), ())
    server = probing.Server.shared()
    with pytest.raises(ProbeError, match="could not be measured alone"):
        server.measure(bad)
    assert asdict(server.measure(good))["steps"] >= 3


def test_the_longest_batch_is_among_the_shapes(study: Callable[..., object]) -> None:
    config = study()
    (run,) = expand(config)
    resolved = Resolver(config.execution).resolve(run)
    lengths = Workshop(config.execution, lambda _: None)
    base = lengths.base(resolved)
    readout = read_out(resolved, base, lengths)
    plan = probing.BatchPlan(lengths.rows(resolved, readout, "train", training=True).lengths, 8)
    longest, median = probing.training_shapes(plan)
    assert longest.length >= median.length
    assert longest.length == max(lengths.rows(resolved, readout, "train", training=True).lengths)


@pytest.mark.slow
def test_weights_are_in_the_probe_to_a_few_percent(
    minilm_folder: Path, study: Callable[..., object], tmp_path: Path
) -> None:
    """Full fine-tuning holds 24 bytes a number and more: base, copy, gradient, two moments, best."""
    config = study(model="minilm", methods=["full"], dtype="float32", execution={"measure": "probe"})
    (record,) = api.compare(config, out=tmp_path / "s").records
    least = 24 * record.parameters.total
    assert least < record.cost.peak_memory_bytes < 1.6 * least


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_cuda_knows_its_own_memory(study: Callable[..., object], tmp_path: Path) -> None:
    (record,) = api.compare(study(execution={"device": "cuda"}), out=tmp_path / "s").records
    assert record.cost.memory_source == "run"
    assert 0 < record.cost.peak_memory_bytes <= record.cost.reserved_memory_bytes


@pytest.fixture
def distilled(study: Callable[..., object], tiny_model_folder: Callable[[str], Path]) -> Callable[..., object]:
    """A study whose student learns from a prompted teacher; its longest batch shares no row with its median one."""

    def build(**more: object) -> object:
        words = {"readout": "verbalizer", "objective": "context-distillation", "model": str(tiny_model_folder("llama"))}
        return study(**{**words, "max_length": 128, **more})

    return build


@pytest.mark.parametrize(
    ("teacher", "room", "asked"),
    [("frozen", 2**30, "once"), ("frozen", 0, "in every step"), ("recursive", 2**30, "in every step")],
)
def test_a_probed_step_asks_the_teacher_where_the_runs_does(
    distilled: Callable[..., object],
    teacher: str,
    room: int,
    asked: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = distilled(teacher=teacher)
    (run,) = expand(config)
    resolved = Resolver(config.execution).resolve(run)
    monkeypatch.setattr(teaching, "_KEPT_BYTES", room)
    requests: list[probing.Request] = []
    measured: list[Probe] = []

    class Here:
        """Measures in this process, where calls can be counted."""

        def measure(self, request: probing.Request) -> Probe:
            requests.append(request)
            measured.append(probing.measure(request))
            return measured[-1]

    questions: list[int] = []
    real = teaching.Teacher._ask

    def counted(self: teaching.Teacher, rows: list[object]) -> object:
        questions.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(teaching.Teacher, "_ask", counted)
    monkeypatch.setattr(probing.Server, "shared", Here)
    probing.probe(resolved, Workshop(config.execution, lambda _: None))
    ((request,), (found,)) = requests, measured
    assert {row.id for row in request.longest}.isdisjoint(row.id for row in request.median)
    assert request.lesson is not None
    assert len(request.lesson.shots.rows) == 4  # those of the run, not of the few rows that are here
    if asked == "once":
        assert questions == [len(request.longest), len(request.median)]
        assert request.lesson.kept_bytes == 8 * len(resolved.data.labels) * len(resolved.data.trained_on)
    else:
        assert len(questions) > 2 + found.steps
        assert questions.count(len(request.median)) > found.steps
        assert request.lesson.kept_bytes == 0


@pytest.mark.parametrize(("teacher", "asked"), [("frozen", False), ("recursive", True)])
def test_the_operations_of_a_teacher_that_is_asked_in_every_step_count(
    distilled: Callable[..., object], teacher: str, asked: bool, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"  # its labels are short, as pieces of the tiny tokenizer are single letters
    path.write_text(
        "text,label\n" + "\n".join(f"{'up and ' * (i % 9)}down,{'yes' if i % 2 else 'no'}" for i in range(99))
    )
    config = distilled(teacher=teacher, batch_size=16, task=str(path))
    (run,) = expand(config)
    resolved = Resolver(config.execution).resolve(run)
    workshop = Workshop(config.execution, lambda _: None)
    stage = set_up(resolved, workshop.base(resolved), workshop)
    known = training_flops(resolved, stage, config.execution)
    member, real, told = stage.member, 0.0, 0.0
    member.modes.eval()
    for step, batch in enumerate(member.plan.epoch(0, member.seed)):
        member.progress = replace(member.progress, step=step)
        real += count(lambda: stage.backward([member])).total
        told += known.of_step(member.data.lengths[batch.rows], batch.length)[0] - known.per_step
    teachers = sum(
        count(lambda ids=batch.rows: stage.teacher.targets([member.data.ids[row] for row in ids])).total
        for batch in member.plan.epoch(0, member.seed)
    )
    assert (teachers > 0.2 * real) is asked
    assert told == pytest.approx(real, rel=0.1 if asked else 1e-3)


def test_a_distilled_run_is_probed_in_a_fresh_process_that_says_nothing(
    distilled: Callable[..., object],
    tiny_model_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(probing.Server, "_one", None)  # its own, so that what it prints is captured here
    config = distilled(execution={"measure": "probe"}, model=str(tiny_model_folder("opt")))  # PEFT warns of its merge
    (record,) = api.compare(config, out=tmp_path / "s").records
    assert record.cost.clock_source == record.cost.memory_source == "probe"
    assert record.cost.step_seconds > 0
    assert record.cost.merged_answer_seconds is not None
    assert probing.Server._one is not None
    probing.Server._one._process.kill()
    assert "Warning" not in capfd.readouterr().err
