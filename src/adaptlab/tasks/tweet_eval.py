"""TweetEval: eleven ways of sorting tweets (Barbieri et al. 2020, https://aclanthology.org/2020.findings-emnlp.148).

Metrics are the benchmark's own.
"""

from __future__ import annotations

from adaptlab.config import Prompt
from adaptlab.tasks._hub import HubTask

_EMOJI = (
    "❤", "😍", "😂", "💕", "🔥", "😊", "😎", "✨", "💙", "😘",
    "📷", "🇺🇸", "☀", "💜", "😉", "💯", "😁", "🎄", "📸", "😜",
)  # fmt: skip
_STANCE = ("none", "against", "favor")


class TweetEval(HubTask):
    """What the eleven have in common."""

    version = 1
    kind = "classification"
    hub_id = "cardiffnlp/tweet_eval"
    text_columns = ("text",)
    test_split = "test"

    def __init__(
        self, config: str, asks: str, labels: tuple[str, ...], metrics: tuple[str, ...], prompts: tuple[Prompt, ...]
    ) -> None:
        self.name = f"tweet_eval-{config.replace('_', '-')}"
        self.hub_config, self.labels, self.metrics, self.prompts = config, labels, metrics, prompts
        self.summary = f"{asks}, {len(labels)} classes"


def _asked(question: str, answers: tuple[str, ...]) -> tuple[Prompt, ...]:
    return (Prompt(name="asked", template=f"Tweet: {{text}}\n{question}", answers=answers),)


def _stance(config: str, towards: str) -> TweetEval:
    prompts = _asked(f"The author's stance on {towards} is", _STANCE)
    return TweetEval(
        f"stance_{config}", f"a tweet's stance on {towards}", _STANCE, ("macro_f1_but_first", "accuracy"), prompts
    )


_HATE = (
    *_asked("Is this hateful? Answer:", ("No", "Yes")),
    Prompt(
        name="present",
        template="{text}",
        answers=(
            "Hate speech is not present in the previous sentences.",
            "Hate speech is present in the previous sentences.",
        ),
    ),
)

plugins = (
    TweetEval("emoji", "the emoji that a tweet had", _EMOJI, ("macro_f1", "accuracy"), _asked("Emoji:", _EMOJI)),
    TweetEval(
        "emotion",
        "a tweet's emotion",
        ("anger", "joy", "optimism", "sadness"),
        ("macro_f1", "accuracy"),
        _asked("Emotion:", ("anger", "joy", "optimism", "sadness")),
    ),
    TweetEval("hate", "is a tweet hateful?", ("non-hate", "hate"), ("macro_f1", "accuracy"), _HATE),
    TweetEval(
        "irony",
        "is a tweet ironic?",
        ("non_irony", "irony"),
        ("f1", "accuracy"),
        _asked("Is this ironic? Answer:", ("No", "Yes")),
    ),
    TweetEval(
        "offensive",
        "is a tweet offensive?",
        ("non-offensive", "offensive"),
        ("macro_f1", "accuracy"),
        _asked("Is this offensive? Answer:", ("No", "Yes")),
    ),
    TweetEval(
        "sentiment",
        "a tweet's sentiment",
        ("negative", "neutral", "positive"),
        ("macro_recall", "accuracy"),
        _asked("Sentiment:", ("negative", "neutral", "positive")),
    ),
    _stance("abortion", "abortion"),
    _stance("atheism", "atheism"),
    _stance("climate", "climate change"),
    _stance("feminist", "feminism"),
    _stance("hillary", "Hillary Clinton"),
)
