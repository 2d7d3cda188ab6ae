"""What a run and a study are, as frozen values, and the hash that names a run.

``StudyConfig`` has one flat key for every flag of ``adaptlab compare``; most of them are *axes*: a list there makes
a grid. ``adaptlab.study.expand`` turns a study into ``RunConfig``s. A ``RunConfig`` is *given* while it still
says "auto" somewhere and *resolved* when nothing is left to decide. Imports pydantic and the standard library only.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

DType = Literal["auto", "float32", "bfloat16", "float16", "float64"]
Readout = Literal["head", "verbalizer", "generate"]
Quantize = Literal["none", "4bit", "8bit"]
HeadMode = Literal["trained", "frozen", "adapted"]
KeepWeights = Literal["all", "best", "none"]
Measure = Literal["auto", "probe", "run"]
Engine = Literal["auto", "solo", "fused"]
Optimizer = Literal["adamw", "adam", "adafactor", "sgd", "sgd-momentum", "sgd-nesterov", "lion", "adamw-8bit"]
Schedule = Literal["constant", "linear", "cosine", "one-cycle", "linear-lr", "inverse-sqrt", "reduce-on-plateau"]
# Names are listed here, and not asked of the modules behind them, so that a study is checked without importing torch.
Objective = Literal["supervised", "context-distillation"]
Teacher = Literal["frozen", "recursive"]
VerbalizerLoss = Literal["labels", "vocabulary"]
LengthNormalization = Literal["none", "tokens", "characters"]
Calibration = Literal["none", "content-free"]
ShotSampling = Literal["random", "balanced"]
Count = Annotated[int, Field(ge=1)]
Pruner = Literal["none", "halving", "median"]
Equalize = Literal["flops", "seconds"]
CountOrAll = Count | Literal["all"]


def _in_full(value: Any) -> Any:
    """``"1e6"`` as the number it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


#: A whole number that people write as 2000000 or 2e6.
Amount = Annotated[int, BeforeValidator(_in_full), Field(ge=1)]

#: Raised whenever a default below, or the meaning of a value, changes: results under the old one are not the new one's.
ID_VERSION = 1


class Frozen(BaseModel):
    """Immutable, refuses unknown keys, accepts ``kebab-case`` keys for ``snake_case`` fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _hyphens(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key.replace("-", "_") if isinstance(key, str) else key: value for key, value in data.items()}
        return data


class ModelConfig(Frozen):
    """A pretrained base: a hub id, a local folder, or ``minilm`` (the one that comes with the package)."""

    id: str
    revision: str | None = None
    quantize: Quantize = "none"
    trust_remote_code: bool = False
    allow_pickle: bool = False


def _words(value: Any) -> Any:
    """Classes and words that YAML reads as numbers are words."""
    if isinstance(value, dict):
        return {str(key): _words(word) for key, word in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_words(word) for word in value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Words = tuple[str | None, ...] | dict[str, str | None] | str | None


class Prompt(Frozen):
    """How a row is put to a language model, and the words that stand for its answers (docs/adding-a-task.md).

    Attributes:
        template: the text up to where the answer begins, with ``{column}`` for a text; ``{{`` is a brace. What white
            space it ends with comes between question and answer instead of one space. ``{choices}`` has a row's
            options, a line each.
        answers: for classes their words: a list in the order of the classes, or a mapping of class to word; a class
            whose word is ``None`` is left out, its rows too. For a row's own options a template with ``{key}`` (A, B,
            ...) and ``{text}``, for generation one with ``{label}``. ``None``: the classes' names, an option's text,
            the reference.
        choice: a line of ``{choices}``.
        explanation: stands behind a demonstration's answer: a text, or one for each class as in ``answers``, which may
            name the columns, ``{label}`` (the answer's words) and ``{explanation}`` (the row's own, of
            ``explanation_column``). Without one, a row's own explanation has a line of its own.
        instruction: stands before everything else, once.
        between: stands between instruction, demonstrations and question.
        stop: a generated answer ends where one of these begins.
    """

    name: Annotated[str, Field(min_length=1)]
    template: str
    answers: Annotated[Words, BeforeValidator(_words)] = None
    choice: str = "{key}. {text}"
    explanation: Annotated[Words, BeforeValidator(_words)] = None
    instruction: str = ""
    between: str = "\n\n"
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ("\n",)


class TaskConfig(Frozen):
    """A task and which of its rows are used. ``name`` is a plugin's name or a path to the user's own data.

    ``prompts`` are the user's own, beside the task's; ``prompt`` names the one that is used. ``also_evaluate`` names
    tasks on whose rows a run is looked at besides. ``balanced``: ``train_examples`` has as many rows of every class.
    ``explanation_column`` has why a row's answer is right, for demonstrations. ``unlabelled_examples``: rows without an
    answer for objectives that need none, out of the training rows that ``train_examples`` leaves and of the user's own
    ``unlabelled`` file; training then passes over these alone.
    """

    name: str
    train_examples: CountOrAll = "all"
    select_examples: CountOrAll = "all"
    eval_examples: CountOrAll = "all"
    data_seed: int = 0
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    explanation_column: str | None = None
    delimiter: str | None = None
    max_length: Count | Literal["auto"] = "auto"
    prompt: str | None = None
    prompts: tuple[Prompt, ...] = ()
    also_evaluate: tuple[str, ...] = ()
    balanced: bool = False
    unlabelled_examples: Annotated[int, Field(ge=0)] | Literal["all"] = 0


class MethodConfig(Frozen):
    """What is trained. ``options`` are the method plugin's own; ``label`` is how tables call this variant."""

    name: str
    label: str = ""
    targets: str | tuple[str, ...] | None = None
    head: HeadMode = "trained"
    options: dict[str, Any] = Field(default_factory=dict)


class TrainingConfig(Frozen):
    """Optimisation. Exactly one of ``epochs`` and ``steps`` counts: ``steps`` wins when it is given.

    Where nothing is trained, both are 0 in the resolved form. Both ``None``: training lasts as long as its budget does.

    A budget (``max_...``) ends training with the last step that keeps within it. ``max_tokens`` are without padding,
    ``max_flops`` as executed with it, ``max_bytes`` those of the texts in UTF-8, ``max_seconds`` those of the steps.
    """

    epochs: Annotated[float, Field(ge=0)] | None = 3.0
    steps: Annotated[int, Field(ge=0)] | None = None
    max_examples: Amount | None = None
    max_tokens: Amount | None = None
    max_flops: Annotated[float, Field(gt=0)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    max_bytes: Amount | None = None
    batch_size: Count = 32
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    optimizer: Optimizer = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Schedule = "linear"
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.06
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    eval_every: Count | None = None
    select: Literal["best", "last"] = "best"
    dtype: DType = "auto"

    @property
    def has_budget(self) -> bool:
        """Whether something besides epochs or steps may end the training."""
        return any(getattr(self, key) is not None for key in BUDGETS)


#: Schedules that have no warm-up but their own.
RISES_BY_ITSELF: tuple[Schedule, ...] = ("one-cycle", "linear-lr")

#: The currencies of a budget besides steps, as keys of a training.
BUDGETS = ("max_examples", "max_tokens", "max_flops", "max_seconds", "max_bytes")


class AnsweringConfig(Frozen):
    """How a language model is asked, and how its answers are read; a head needs none of it.

    Attributes:
        verbalizer_loss: training compares the right label's words with the other ``labels``, or with every word of the
            ``vocabulary``; context distillation compares teacher and student over either.
        length_normalization: what an answer's log-likelihood is divided by before answers are compared.
        calibration: ``content-free`` takes away what the model would answer to a row that says nothing (arXiv
            2102.09690).
        shot_sampling: ``balanced`` shows as many of each class as of every other.
        shots_per_query: other demonstrations for every question.
        max_new_tokens: the most that is written freely; ``beams`` above 1 search for the likeliest text.
        stop: what ends a text that is written freely; ``None`` for what the prompt says.
        teacher: of context distillation: the base as it was, or the model being trained, each with the whole prompt and
            ``teacher_shots`` demonstrations; ``temperature`` softens both sides.
    """

    verbalizer_loss: VerbalizerLoss = "labels"
    length_normalization: LengthNormalization = "none"
    calibration: Calibration = "none"
    shot_sampling: ShotSampling = "random"
    shots_per_query: bool = False
    max_new_tokens: Count = 64
    beams: Count = 1
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    teacher: Teacher = "frozen"
    teacher_shots: Annotated[int, Field(ge=0)] = 4
    temperature: Annotated[float, Field(gt=0)] = 1.0


class RunConfig(Frozen):
    """One run: everything that can change its result, and nothing that says where it runs."""

    model: ModelConfig
    task: TaskConfig
    method: MethodConfig
    training: TrainingConfig = TrainingConfig()
    readout: Readout = "head"
    objective: Objective = "supervised"
    shots: Annotated[int, Field(ge=0)] = 0
    report: bool = True  # False: a trial of a search, which answers the selection rows alone
    answering: AnsweringConfig = AnsweringConfig()
    seed: Annotated[int, Field(ge=0)] = 0

    def idle(self, *, trains: bool) -> frozenset[str]:
        """Paths of the values that cannot change this run's result, as ``answering.teacher`` of supervised training.

        Args:
            trains: whether its method trains anything.
        """
        words, distils = self.readout == "verbalizer", self.objective == "context-distillation"
        shown = self.shots > 0 or (distils and self.answering.teacher_shots > 0)
        used = {
            **{f"training.{key}": trains for key in TrainingConfig.model_fields if key != "dtype"},
            **dict.fromkeys(("answering.teacher", "answering.teacher_shots", "answering.temperature"), distils),
            **dict.fromkeys(("answering.length_normalization", "answering.calibration"), words),
            **dict.fromkeys(("answering.shot_sampling", "answering.shots_per_query"), shown),
            **dict.fromkeys(
                ("answering.max_new_tokens", "answering.beams", "answering.stop"), self.readout == "generate"
            ),
            "answering.verbalizer_loss": words and trains,
            # A language model has no head to freeze, but one that takes an adapter.
            "method.head": self.readout == "head" or self.method.head == "adapted",
        }
        used["training.head_learning_rate"] &= self.readout == "head" and self.method.head == "trained"
        used["training.warmup_ratio"] &= self.training.schedule not in RISES_BY_ITSELF
        return frozenset(path for path, counts in used.items() if not counts)

    def without_idle(self, *, trains: bool) -> RunConfig:
        """The same run with every value that cannot change its result at its default; see :meth:`idle`."""
        parts: dict[str, dict[str, Any]] = {}
        for path in self.idle(trains=trains):
            part, key = path.split(".")
            parts.setdefault(part, {})[key] = type(getattr(self, part)).model_fields[key].default
        return self.model_copy(
            update={part: getattr(self, part).model_copy(update=values) for part, values in parts.items()}
        )

    @model_validator(mode="after")
    def _answers_to_learn(self) -> RunConfig:
        if self.objective == "supervised" and self.task.unlabelled_examples:
            raise ValueError("supervised training learns from answers, and unlabelled_examples have none")
        return self


def _listed(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class ExecutionConfig(Frozen):
    """Where and how runs execute; changes no result, so it is in no run's id."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None
    data_root: str | None = None
    keep_weights: KeepWeights = "best"
    micro_batch_size: Count | None = None
    gradient_checkpointing: bool = False
    engine: Engine = "auto"
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30.0
    measure: Measure = "auto"
    track: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    track_project: str | None = None
    track_entity: str | None = None
    track_group: str | None = None
    track_name: str | None = None
    track_mode: Literal["online", "offline", "disabled"] | None = None
    profile: bool = False
    launcher: str = "inline"
    workers: Count | None = None
    devices_per_run: Count = 1
    shard: bool = False
    wait: bool = True
    ray_address: str | None = None
    launch: dict[str, int | float | str] = Field(default_factory=dict)  # the launcher's own options

    @model_validator(mode="after")
    def _devices_to_shard_over(self) -> ExecutionConfig:
        if self.shard and self.devices_per_run == 1:
            raise ValueError("shard cuts a run's weights over its devices: give devices-per-run of 2 or more with it")
        return self


class RunIdentity(Frozen):
    """The contents behind the names of a resolved run; with it, the id is a hash of content."""

    weights: str  # "sha256:..." of the weight files, or "revision:..." of a hub snapshot
    data: str  # "sha256:..." over the rows of every split
    task: str  # plugin name
    task_version: int
    prompt: str | None = None  # "sha256:..." over what the prompt says, where one is used


def run_id(resolved: RunConfig, identity: RunIdentity) -> str:
    """The run's id: 64 hex digits over content. Paths, labels and whatever equals its default are not in it."""
    config = resolved.model_dump(mode="json", exclude_defaults=True)
    config["model"] = {k: v for k, v in config["model"].items() if k == "quantize"}
    config["task"].pop("name")
    config["method"].pop("label", None)
    # How columns were found is not content: what was read from them is, and the data's hash covers it.
    # Nor is what a prompt is called: its hash covers what it says.
    for key in (
        "text_columns",
        "label_column",
        "explanation_column",
        "delimiter",
        "prompt",
        "prompts",
        "also_evaluate",
    ):
        config["task"].pop(key, None)
    document = {"version": ID_VERSION, "config": config, "identity": identity.model_dump(exclude_none=True)}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


#: More seeds than any study runs: a number beyond it was a mistake, and would fill memory.
_MOST_SEEDS = 10_000


def _seeds(value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value < 1:
        raise ValueError(f"'seeds' must be at least 1, not {value}")
    if value > _MOST_SEEDS:
        raise ValueError(f"{value} seeds are too many: at most {_MOST_SEEDS}, or a list of the seeds themselves")
    return tuple(range(value))


T = TypeVar("T")
Axis = Annotated[tuple[T, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


#: A regular expression or a word, several words, or (a list of lists) a grid of either.
Targets = str | tuple[str, ...] | tuple[tuple[str, ...], ...] | None


#: Names that the field has for a method on a base of a certain kind: what they stand for.
SPELLINGS: dict[str, dict[str, Any]] = {"qlora": {"name": "lora", "label": "qlora", "quantize": "4bit"}}


class MethodEntry(BaseModel):
    """A line of a study's ``methods``: a name, or a mapping of a name and options. A list-valued option is a grid.

    Keys other than those below are the method's own options (checked against its plugin when the study expands).
    ``readout``, ``objective``, ``shots``, ``teacher``, ``verbalizer_loss``, ``optimizer`` and ``schedule`` stand in for
    the study's where they are given.
    ``quantize`` is that of the base under this method; without it the study's, or the model's own, counts.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=(), allow_inf_nan=False)

    name: str
    label: str = ""
    targets: Targets = None
    head: Axis[HeadMode] = ("trained",)
    quantize: Axis[Quantize] | None = None
    learning_rate: Axis[Annotated[float, Field(gt=0)] | Literal["auto"]] | None = None
    readout: Axis[Readout] | None = None
    objective: Axis[Objective] | None = None
    shots: Axis[Annotated[int, Field(ge=0)]] | None = None
    teacher: Axis[Teacher] | None = None
    verbalizer_loss: Axis[VerbalizerLoss] | None = None
    optimizer: Axis[Optimizer] | None = None
    schedule: Axis[Schedule] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, dict):
            return data
        given = {k.replace("-", "_") if isinstance(k, str) else k: v for k, v in data.items()}
        name = given.get("name")
        spelling = SPELLINGS.get(name, {}) if isinstance(name, str) else {}
        if spelling and given.get("quantize") is not None:
            raise ValueError(f"{name} says the quantisation already: leave quantize out, or name {spelling['name']}")
        return {**spelling, **given, **{k: v for k, v in spelling.items() if k == "name"}}

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options, as they were written."""
        return dict(self.model_extra or {})


def _model_entry(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


def _task_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


ModelEntry = Annotated[ModelConfig, BeforeValidator(_model_entry)]


class TaskEntry(Frozen):
    """A line of a study's ``tasks``: a name or path, or a mapping that also says where text and label stand."""

    name: str
    text_columns: Axis[str] | None = None
    label_column: str | None = None
    explanation_column: str | None = None
    delimiter: str | None = None
    prompt: Axis[str] | None = None
    prompts: tuple[Prompt, ...] = ()
    also_evaluate: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()


class StudyConfig(Frozen):
    """A grid of runs that answer one question. Every field is a key of study.yaml and a flag of ``compare``."""

    model: Axis[ModelEntry] = (ModelConfig(id="minilm"),)
    task: Axis[Annotated[TaskEntry, BeforeValidator(_task_entry)]]
    methods: Axis[MethodEntry]
    seeds: Annotated[Axis[Annotated[int, Field(ge=0)]], BeforeValidator(_seeds)] = (0, 1, 2)
    targets: Targets = None  # of every method that sits at layers and has none of its own
    quantize: Axis[Quantize] | None = None  # of the base under every method that does not say; None: the model's own

    train_examples: Axis[CountOrAll] = ("all",)
    select_examples: CountOrAll = "all"
    eval_examples: CountOrAll = "all"
    data_seed: Axis[int] = (0,)
    balanced: bool = False
    unlabelled_examples: Axis[Annotated[int, Field(ge=0)] | Literal["all"]] = (0,)
    max_length: Axis[Count | Literal["auto"]] = ("auto",)
    readout: Axis[Readout] = ("head",)
    objective: Axis[Objective] = ("supervised",)
    shots: Axis[Annotated[int, Field(ge=0)]] = (0,)
    verbalizer_loss: Axis[VerbalizerLoss] = ("labels",)
    length_normalization: Axis[LengthNormalization] = ("none",)
    calibration: Axis[Calibration] = ("none",)
    shot_sampling: Axis[ShotSampling] = ("random",)
    shots_per_query: Axis[bool] = (False,)
    max_new_tokens: Axis[Count] = (64,)
    beams: Axis[Count] = (1,)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    teacher: Axis[Teacher] = ("frozen",)
    teacher_shots: Axis[Annotated[int, Field(ge=0)]] = (4,)
    temperature: Axis[Annotated[float, Field(gt=0)]] = (1.0,)

    epochs: Axis[Annotated[float, Field(gt=0)]] | None = None
    steps: Axis[Count] | None = None
    max_examples: Axis[Amount] | None = None
    max_tokens: Axis[Amount] | None = None
    max_flops: Axis[Annotated[float, Field(gt=0)]] | None = None
    max_seconds: Axis[Annotated[float, Field(gt=0)]] | None = None
    max_bytes: Axis[Amount] | None = None
    batch_size: Axis[Count] = (32,)
    learning_rate: Axis[Annotated[float, Field(gt=0)] | Literal["auto"]] = ("auto",)
    head_learning_rate: Axis[Annotated[float, Field(gt=0)]] | None = None
    optimizer: Axis[Optimizer] = ("adamw",)
    weight_decay: Axis[Annotated[float, Field(ge=0)]] = (0.0,)
    schedule: Axis[Schedule] = ("linear",)
    warmup_ratio: Axis[Annotated[float, Field(ge=0, le=1)]] = (0.06,)
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    eval_every: Count | None = None
    select: Literal["best", "last"] = "best"
    dtype: Axis[DType] = ("auto",)

    tune: Count | None = None  # trials of each method, before its seeds are run with the best values
    pruner: Pruner = "none"
    equalize: Equalize | None = None
    equal_budgets: dict[str, Annotated[float, Field(gt=0)]] | None = None  # by task, once they are known
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _one_budget(self) -> StudyConfig:
        if self.equalize is not None and any(getattr(self, key) is not None for key in BUDGETS):
            raise ValueError("equalize makes the budget itself: leave it out, or leave out max_flops and its like")
        if self.equal_budgets is not None and self.equalize is None:
            raise ValueError("equal_budgets are of equalize: say which, flops or seconds")
        return self

    @model_validator(mode="after")
    def _prunes_a_search(self) -> StudyConfig:
        if self.pruner != "none" and self.tune is None:
            raise ValueError("pruner ends trials of a search early: give tune, the number of trials, or leave it out")
        return self

    @property
    def has_end(self) -> bool:
        """Whether epochs or steps end a training: they do unless a budget alone was given."""
        return self.epochs is not None or self.steps is not None or all(getattr(self, key) is None for key in BUDGETS)

    @model_validator(mode="after")
    def _one_length(self) -> StudyConfig:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps were both given: keep the one that says how long to train")
        return self
