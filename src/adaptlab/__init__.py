"""adaptlab finds out which way of adapting a language model suits your task and your budget.

>>> import adaptlab
>>> study = adaptlab.study_of(task="sst2", methods=["head", "lora"], seeds=3)
>>> result = adaptlab.compare(study, out="sst2-study")
>>> adaptlab.load(result.folder / "runs" / result.records[-1].name).predict(["a moving film"])
"""

from adaptlab.api import (
    Evaluation,
    StudyResult,
    compare,
    evaluate,
    evaluate_adapter,
    export,
    load,
    plan,
    study_of,
    train,
)
from adaptlab.config import StudyConfig
from adaptlab.errors import AdaptlabError

__version__ = "0.1.0"
__all__ = [
    "AdaptlabError",
    "Evaluation",
    "StudyConfig",
    "StudyResult",
    "compare",
    "evaluate",
    "evaluate_adapter",
    "export",
    "load",
    "plan",
    "study_of",
    "train",
]
