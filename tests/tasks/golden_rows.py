"""Three rows of every data set, made up, in the shape that the source has them: columns, class names, values."""

from __future__ import annotations

from typing import Any

from adaptlab.tasks._table import Table

Columns = dict[str, list[Any]]

_NLI: Columns = {
    "premise": ["A man sleeps.", "A dog runs in the park.", "The cook ate soup ."],
    "hypothesis": ["A person sleeps.", "The park is large", "Nobody ate ."],
}
_PAIR: Columns = {
    "sentence1": ["It rained all day.", "He sold the car.", 'She said "no" .'],
    "sentence2": ["The day was wet.", "He bought a car.", "She refused ."],
}
_TWEETS: Columns = {"text": ["@user what a day", "so {proud} of you  \n", "no. just no"]}
_THREE: Columns = {"label": [0, 1, 2]}
_TWO: Columns = {"label": [0, 1, 0]}
_NLI_NAMES = ("entailment", "neutral", "contradiction")

#: Columns, and the class names in the file's metadata; a name ends with ``*`` where several tasks have the same.
ROWS: dict[str, tuple[Columns, tuple[str, ...]]] = {
    "cola": (
        {"sentence": ["They saw it.", "Saw they it.", "Who left?"], "label": [1, 0, 1]},
        ("unacceptable", "acceptable"),
    ),
    "sst2": ({"sentence": ["a warm , funny film ", "dull", "it works "], "label": [1, 0, 1]}, ("negative", "positive")),
    "mrpc": ({**_PAIR, "label": [1, 0, 1]}, ("not_equivalent", "equivalent")),
    "qqp": (
        {
            "question1": ["How do I cook rice?", "Why is the sky blue?", "What is 2+2?"],
            "question2": ["How is rice cooked?", "Why is the sea blue?", "What's two and two?"],
            "label": [1, 0, 1],
        },
        ("not_duplicate", "duplicate"),
    ),
    "stsb": ({**_PAIR, "label": [3.8, 0.0, 4.75]}, ()),
    "mnli*": ({**_NLI, **_THREE}, _NLI_NAMES),
    "qnli": (
        {
            "question": ["Who ate?", "When did it rain?", "Where is it?"],
            "sentence": ["The cook ate.", "It was dry in May.", "It is in Rome."],
            "label": [0, 1, 0],
        },
        ("entailment", "not_entailment"),
    ),
    "rte": ({**_PAIR, **_TWO}, ("entailment", "not_entailment")),
    "wnli": ({**_PAIR, **_TWO}, ("not_entailment", "entailment")),
    "hans": (
        {
            **_NLI,
            **_TWO,
            "heuristic": ["lexical_overlap", "subsequence", "constituent"],
            "subcase": ["le_passive", "sn_NP/S", "ce_adverb"],
        },
        ("entailment", "non-entailment"),
    ),
    "breaking-nli": ({**_NLI, **_THREE, "category": ["synonyms", "colors", "antonyms"]}, _NLI_NAMES),
    "med": (
        {
            **_NLI,
            "label": [0, 1, 1],
            "genre": ["crowd:upward_monotone", "paper:downward_monotone:npi", "paper:GLUE:non_monotone"],
        },
        _NLI_NAMES,
    ),
    "paws-qqp": ({**_PAIR, "label": [1, 0, 1]}, ()),
    "emotion": ({**_TWEETS, "label": [0, 1, 3]}, ("sadness", "joy", "love", "anger", "fear", "surprise")),
    "ag_news": (
        {"text": ["Talks resume", "Late goal wins it", "Chip &lt;b&gt;maker&lt;/b&gt; grows"], "label": [0, 1, 3]},
        ("World", "Sports", "Business", "Sci/Tech"),
    ),
    "imdb": ({"text": ["Great.<br /><br />Really.", "Awful", "Fine film"], "label": [1, 0, 1]}, ("neg", "pos")),
    "financial_phrasebank*": (
        {"sentence": ["Sales fell .", "The firm is in Espoo .", "Profit rose ."], **_THREE},
        ("negative", "neutral", "positive"),
    ),
    "tweet_eval-emoji": ({**_TWEETS, "label": [0, 11, 19]}, ()),
    "tweet_eval-emotion": ({**_TWEETS, "label": [0, 2, 3]}, ("anger", "joy", "optimism", "sadness")),
    "tweet_eval-hate": ({**_TWEETS, **_TWO}, ("non-hate", "hate")),
    "tweet_eval-irony": ({**_TWEETS, **_TWO}, ("non_irony", "irony")),
    "tweet_eval-offensive": ({**_TWEETS, **_TWO}, ("non-offensive", "offensive")),
    "tweet_eval-sentiment": ({**_TWEETS, **_THREE}, ("negative", "neutral", "positive")),
    "tweet_eval-stance*": ({**_TWEETS, **_THREE}, ("none", "against", "favor")),
    "commonsense_qa": (
        {
            "question": ["Where do you keep milk?", "What barks?", "What is wet?"],
            "choices": [
                {"label": list("ABCDE"), "text": ["oven", "fridge", "shelf", "car", "shoe"]},
                {"label": list("ABCDE"), "text": ["dog", "cat", "tree", "door", "song"]},
                {"label": list("ABCDE"), "text": ["sand", "fire", "sun", "salt", "rain"]},
            ],
            "answerKey": ["B", "A", "E"],
        },
        (),
    ),
    "race*": (
        {
            "example_id": ["middle12.txt", "high3.txt", "high3.txt"],
            "article": ["Ann has a cat.\nIt is black.", "Rome is old.", "Rome is old."],
            "question": ["What does Ann have?", "Rome is  _  .", "How old is Rome?"],
            "options": [
                ["A cat.", "A dog.", "A bird.", "A fish."],
                ["new", "old", "wet", "far"],
                ["Young.", "New.", "Not said.", "Four."],
            ],
            "answer": ["A", "B", "C"],
        },
        (),
    ),
    "e2e_nlg": (
        {
            "meaning_representation": ["name[The Mill], food[French]", "name[The Mill], food[French]", "name[Zizzi]"],
            "human_reference": ["The Mill is French.", "The Mill serves French food.", "There is a Zizzi."],
        },
        (),
    ),
    "gsm8k": (
        {
            "question": ["Ann has 3 eggs and buys 4. How many?", "Half of 10?", "2 and 2?"],
            "answer": ["3+4=<<3+4=7>>7 eggs.\n#### 7", "10/2=<<10/2=5>>5\n#### 5", "#### 4"],
        },
        (),
    ),
}


def table_of(task_name: str) -> Table:
    """The three rows of a task."""
    known = next(name for name in ROWS if task_name == name or (name[-1] == "*" and task_name.startswith(name[:-1])))
    columns, names = ROWS[known]
    return Table(columns, {"label": names} if names else {})
