from __future__ import annotations

import pytest
import torch
import transformers

from adaptlab.errors import UnknownNameError
from adaptlab.training.schedules import factor


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_factors_equal_transformers_schedules(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    key = "constant_with_warmup" if name == "constant" else name
    theirs = transformers.get_scheduler(key, optimizer, num_warmup_steps=3, num_training_steps=50)
    for step in range(50):
        assert factor(name, step, 50, 0.06) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_unknown_schedule_names_a_near_match() -> None:
    with pytest.raises(UnknownNameError, match="did you mean linear"):
        factor("liner", 0, 10, 0.0)
