"""GSM8K: word problems of primary school, worked out step by step (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168)."""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._hub import HubTask


class Gsm8k(HubTask):
    """An answer is worked out in full and ends with ``#### 72``; the number alone is scored."""

    name = "gsm8k"
    summary = "word problems of primary school, generation, 7,473 training rows"
    version = 1
    kind = "generation"
    metrics = ("final_answer", "final_answer_given")
    hub_id = "openai/gsm8k"
    hub_config = "main"
    text_columns = ("question",)
    label_column = "answer"
    validation_split = None
    test_split = "test"
    prompts = (Prompt(name="worked-out", template="Question: {question}\nAnswer:", stop=("\nQuestion:", "\n\n")),)


plugin = Gsm8k()
