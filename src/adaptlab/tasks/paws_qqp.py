"""PAWS-QQP: questions whose words are swapped (Zhang et al. 2019, https://aclanthology.org/N19-1131).

Its licence keeps the rows off the hub: its authors' script makes them from QQP (https://github.com/google-research-datasets/paws).
Its train.tsv and dev_and_test.tsv, as ``paws_qqp/train.parquet`` and ``paws_qqp/test.parquet``, belong in a data root.
"""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._hub import HubTask


class PawsQqp(HubTask):
    name = "paws-qqp"
    summary = "do two questions with swapped words ask the same? 2 classes, 11,988 training rows; from a data root"
    version = 1
    kind = "classification"
    metrics = ("accuracy", "f1")
    hub_id = "paws_qqp"
    text_columns = ("sentence1", "sentence2")
    labels = ("not_duplicate", "duplicate")
    validation_split = None
    test_split = "test"
    prompts = (
        Prompt(
            name="same-thing",
            template="Question 1: {sentence1}\nQuestion 2: {sentence2}\n"
            "Question: Do both questions ask the same thing? Answer: ",
            answers=("No", "Yes"),
        ),
    )


plugin = PawsQqp()
