"""adaptlab finds out which way of adapting a language model suits your task and your budget.

>>> import adaptlab
>>> study = adaptlab.study_of(task="sst2", methods=["head", "lora"], seeds=3)
>>> result = adaptlab.compare(study, out="sst2-study")
>>> adaptlab.Study.load("sst2-study").answer
>>> adaptlab.load(result.folder / "runs" / result.records[-1].name).predict(["a moving film"])
"""

from adaptlab.api import (
    Evaluation,
    StudyResult,
    choose,
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
from adaptlab.notebook import Study

__version__ = "0.1.0"
__all__ = [
    "AdaptlabError",
    "Evaluation",
    "Study",
    "StudyConfig",
    "StudyResult",
    "choose",
    "compare",
    "evaluate",
    "evaluate_adapter",
    "export",
    "load",
    "plan",
    "study_of",
    "train",
]
