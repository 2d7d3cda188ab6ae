from __future__ import annotations

import pytest

from adaptlab.config import MethodConfig, ModelConfig, RunConfig, RunIdentity, StudyConfig, TaskConfig
from adaptlab.runs.record import ConfigPart, Record

RUN_ID = "0123456789abcdef" * 4
RUN_NAME = "sst2-lora-s0-01234567"


@pytest.fixture
def record() -> Record:
    config = RunConfig(model=ModelConfig(id="minilm"), task=TaskConfig(name="sst2"), method=MethodConfig(name="lora"))
    identity = RunIdentity(weights="sha256:1", data="sha256:2", task="sst2", task_version=1)
    return Record(
        id=RUN_ID,
        name=RUN_NAME,
        status="finished",
        config=ConfigPart(given=config, resolved=config, identity=identity),
        metrics={"validation": {"accuracy": 0.5, "n": 4}},
    )


@pytest.fixture
def study() -> StudyConfig:
    return StudyConfig.model_validate({"task": "sst2", "methods": ["lora", "full"], "seeds": 2})
