"""Summaries of data sets of any size, made by hand, and one whose words would be markup if they were not text."""

from dataclasses import replace

from hf_attn_mi.results import ClassWord, CorpusSummary, ErrorWord, OpposingWord

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "<!--\u2028\ud800\x00&lt;",
    "\u202e.exe {{ 7 * 7 }}",
)


def class_word(word, name, mean=1.5, *, adjusted=0.002, examples=None):
    """A word of a class; with a mean of 1.5 the interval is 1.25 to 1.75."""
    found = (f"a {word} film",) if examples is None else examples
    return ClassWord(word, name, 20, 22, mean, (mean - 0.25, mean + 0.25), 0.125, 0.001, adjusted, found)


def corpus(classes=2, words=3, **changes):
    """So many classes with so many words each, and as many words of errors and against their class."""
    names = tuple(f"class {i}" for i in range(classes))
    values = {
        "rows": 1000 * classes,
        "classes": names,
        "counts": tuple(1000 + classes - i for i in range(classes)),
        "accuracy": 0.875,
        "words": tuple(class_word(f"word{i}", name, 2.0 - i / words) for name in names for i in range(words)),
        "errors": tuple(
            ErrorWord(f"but{i}", names[0], 12, 30, 0.5, -0.25, 0.75, (0.25, 1.25), 0.01, 0.02, (f"BUT{i} dull",))
            for i in range(words)
        ),
        "opposing": tuple(
            OpposingWord(f"not{i}", names[0], 0.75, 15, -0.5, (-0.75, -0.25), 0.04, 0.4) for i in range(words)
        ),
        "tested": 4321,
        "least": 10,
        "info": {"model": "m", "method": "relevance", "data": "reviews.jsonl", "folder": "out", "seed": 0},
        "skipped": 12,
    }
    return CorpusSummary(**{**values, **changes})


def hostile_corpus():
    """Words, classes, examples, model and data that are markup."""
    words = [replace(class_word(word, HOSTILE[0]), examples=(f"a {word} b", *HOSTILE)) for word in HOSTILE]
    errors = [replace(one, word=word, target_name=word) for one, word in zip(corpus(words=5).errors, HOSTILE)]
    opposing = [replace(one, word=word, label=word) for one, word in zip(corpus(words=5).opposing, HOSTILE)]
    info = dict.fromkeys(("model", "method", "data", "folder"), HOSTILE[1])
    names = (*HOSTILE, *(f"{i} {HOSTILE[0]}" for i in range(9)))
    return replace(
        corpus(), classes=names, counts=(1,) * len(names), words=tuple(words), errors=tuple(errors),
        opposing=tuple(opposing), info=info,
    )  # fmt: skip
