"""Words are the word segments of Unicode (UAX #29); in scripts without blanks tokens are words."""

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_attn_mi import InvalidInputError, explain, minimal_tokens
from hf_attn_mi.models.words import number_words, trimmed, word_segments
from hf_attn_mi.results import Removal, Span
from tests.results.result_samples import token_set
from tests.sample_models import TEXTS, tiny_bert


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It aren't so, can’t be!", ["It", "aren't", "so", ",", "can’t", "be", "!"]),
        ("3.5 of 1,000 in the U.S.A.", ["3.5", "of", "1,000", "in", "the", "U.S.A", "."]),
        ("well-made foo_bar", ["well", "-", "made", "foo_bar"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),  # Korean puts blanks between words
        ("我爱北京", list("我爱北京")),
        ("コンピュータ ひら", [*"コンピュータ", *"ひら"]),
        ("ภาษาไทย", list("ภาษาไทย")),
        ("hello世界 AI技术", ["hello", "世", "界", "AI", "技", "术"]),
        ("👨‍👩‍👧 🇩🇪🇫🇷 é", ["👨‍👩‍👧", "🇩🇪", "🇫🇷", "é"]),
        ('מיכל אמרה צה"ל', ["מיכל", "אמרה", 'צה"ל']),
        ("हिन्दी में", ["हिन्दी", "में"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_segments_are_those_of_unicode(text, words):
    assert [text[start:end] for start, end in word_segments(text)] == words


def test_a_span_loses_the_blanks_at_its_ends():
    assert trimmed("I love it", 1, 7) == (2, 6)
    assert trimmed("a  b", 1, 3) == (1, 3)  # nothing else is in it
    assert trimmed("", 0, 0) == (0, 0)


@pytest.mark.parametrize(
    ("text", "offsets", "tokenizer_words", "numbers"),
    [
        ("aren't we", [(0, 4), (4, 5), (5, 6), (7, 9)], [0, 1, 2, 3], [0, 0, 0, 1]),
        ("so...", [(0, 2), (2, 5)], None, [0, 1]),  # a token that spans three segments keeps them together
        ("a b c d", [(0, 3), (2, 5), (6, 7)], None, [0, 0, 1]),  # tokens that overlap
        (" 我爱", [(0, 1), (1, 2), (2, 3)], [0, 0, 0], [0, 0, 1]),  # the mark of a blank goes with the next token
        ("我😀", [(0, 1), (1, 2), (1, 2), (1, 2)], None, [0, 1, 1, 1]),  # bytes of one character
        ("a  b ", [(0, 1), (1, 2), (2, 4), (4, 5)], [0, 1, 2, 3], [0, 1, 2, 3]),  # blanks that are tokens
        ("AI技术好", [(0, 3), (3, 5)], None, [0, 1]),
    ],
)
def test_tokens_that_share_a_segment_are_one_word(text, offsets, tokenizer_words, numbers):
    found = number_words(text, offsets, range(len(offsets)), tokenizer_words)
    assert [found[i] for i in range(len(offsets))] == numbers


# --- through explain ------------------------------------------------------------------------------------------------


def tokenizer_of(kind):
    """A tokenizer without merges whose tokens are characters: byte-level or SentencePiece's blanks."""
    characters = sorted({*"I love it. aren't 我爱北京天安门!", "▁", *map(chr, range(33, 127))})
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {c: 5 + i for i, c in enumerate(characters)}
    words = ["▁love", "▁it", "▁I"] if kind == "metaspace" else ["Ġlove", "Ġit"]
    vocabulary |= {word: 500 + i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    if kind == "metaspace":
        pieces = pre_tokenizers.Split(Regex("▁(love|it|I)|."), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pieces])
        tokenizer.decoder = decoders.Metaspace()
    else:
        pieces = pre_tokenizers.Split(Regex("Ġ(love|it)|."), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([byte_level, pieces])
        tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


@pytest.mark.parametrize("kind", ["metaspace", "byte-level"])
def test_offsets_have_no_blank_and_words_are_cut_by_them(kind):
    tokenizer = tokenizer_of(kind)
    text = "I love it. aren't"
    assert (1, 6) in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]  # the tokenizer's own: " love"
    words = explain(tiny_bert(), text, tokenizer=tokenizer).to_words()
    assert [(word.text, word.start, word.end) for word in words if word.text.strip()] == [
        ("I", 0, 1),
        ("love", 2, 6),
        ("it", 7, 9),
        (".", 9, 10),
        ("aren't", 11, 17),
    ]


@pytest.mark.parametrize("kind", ["metaspace", "byte-level"])
def test_a_chinese_sentence_is_as_many_words_as_tokens(kind):
    text = "我爱北京天安门"
    explanation = explain(tiny_bert(), text, tokenizer=tokenizer_of(kind))
    words = explanation.to_words()
    assert [word.text for word in words] == list(text)
    assert sum(word.score for word in words) == pytest.approx(float(explanation.scores.double().sum()), abs=1e-9)
    assert [i for word in words for i in word.tokens] == list(range(len(explanation.tokens)))  # none twice, none lost


TEXT = "It aren't a film, it aren't a joke."


def test_a_contraction_is_one_word_with_the_sum_of_its_tokens(demo):
    model, tokenizer = demo
    explanation = explain(model, TEXT, tokenizer=tokenizer)
    words = explanation.to_words()
    assert [word.text for word in words] == ["It", "aren't", "a", "film", ",", "it", "aren't", "a", "joke", "."]
    for word in words:
        assert word.score == pytest.approx(float(explanation.scores[list(word.tokens)].double().sum()), abs=1e-12)
    assert len(words[1].tokens) >= 3
    token_set = minimal_tokens(model, TEXT, tokenizer=tokenizer, second_ranking=None)
    assert {word.text for word in token_set.words} <= {word.text for word in words}


def test_words_that_occur_twice_are_shown_with_their_place(demo):
    model, tokenizer = demo
    text = explain(model, TEXT, tokenizer=tokenizer).to_text(color="none")
    for name in ("aren't (word 2)", "aren't (word 7)", "a (word 3)", "a (word 8)"):
        assert f" {name} " in text
    assert " film " in text
    assert "film (word" not in text
    pair = explain(model, ("A fine film.", "A film."), tokenizer=tokenizer).to_text(color="none")
    assert "film (text 1, word 3)" in pair
    assert "film (text 2, word 2)" in pair
    tokens = tuple(tokenizer.convert_ids_to_tokens(tokenizer("so so bad")["input_ids"]))
    span = Span("so", 3, 5, 0, (2,))
    changes = {"tokens": tokens, "texts": ("so so bad",), "special": (True, *[False] * (len(tokens) - 2), True)}
    removal = Removal(2, "so", 0.5, 0.95, True, True, "both")
    shown = token_set(**changes, indices=(2,), spans=(span,), words=(span,), singles=(removal,)).to_text(color="none")
    assert "(holds: locally minimal): 'so' (token 2)." in shown
    assert "Without 'so' (token 2): set" in shown


def test_offsets_and_words_of_a_batch_encoding_are_kept(demo):
    model, tokenizer = demo
    encoding = tokenizer([TEXT, TEXTS[1]], padding=True, return_tensors="pt")
    found, wanted = (explain(model, inputs, tokenizer=tokenizer)[0] for inputs in (encoding, [TEXT, TEXTS[1]]))
    assert found.texts == ()
    assert (found.offsets, found.word_ids, found.sequence_ids) == (wanted.offsets, wanted.word_ids, wanted.sequence_ids)
    places = [(word.start, word.end, word.tokens) for word in wanted.to_words()]
    assert [(word.start, word.end, word.tokens) for word in found.to_words()] == places
    assert type(found).from_dict(found.to_dict()) == found
    assert "aren" in found.to_text()
    assert found.to_html()


@pytest.mark.parametrize("tensors", ["pt", None])
def test_an_offset_mapping_among_the_tensors_is_used(demo, tensors):
    model, tokenizer = demo
    options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_tensors": tensors}
    encoding = dict(tokenizer([TEXT], **options))  # a plain dict keeps no encodings
    found = explain(model, encoding)
    wanted = explain(model, [TEXT], tokenizer=tokenizer)[0]
    assert found.offsets == wanted.offsets
    assert found.special == wanted.special


# --- lists of words -------------------------------------------------------------------------------------------------

WORDS = ["It", "aren't", "New York", ",", "darling"]


@pytest.mark.parametrize("kind", ["demo", "byte-level"])
def test_lists_of_words_are_the_words_of_the_explanation(demo, kind):
    model, tokenizer = demo if kind == "demo" else (tiny_bert(), tokenizer_of(kind))
    one = explain(model, WORDS, tokenizer=tokenizer, is_split_into_words=True)
    assert one.texts == (" ".join(WORDS),)
    assert [word.text for word in one.to_words()] == WORDS
    several = explain(model, [WORDS, ["fine"]], tokenizer=tokenizer, is_split_into_words=True)
    assert [[word.text for word in each.to_words()] for each in several] == [WORDS, ["fine"]]
    encoded = tokenizer(WORDS, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        wanted = float(model(**{k: v for k, v in encoded.items() if k != "token_type_ids"}).logits.softmax(1).max())
    assert one.probability == pytest.approx(wanted, abs=1e-5)


def test_a_pair_of_lists_of_words_is_a_tuple(demo):
    model, tokenizer = demo
    one = explain(model, (["Is", "it", "fine", "?"], ["It", "is"]), tokenizer=tokenizer, is_split_into_words=True)
    assert one.texts == ("Is it fine ?", "It is")
    assert [(word.text, word.sequence) for word in one.to_words()][-2:] == [("It", 1), ("is", 1)]
    listed = explain(model, [(["a"], ["b"])], tokenizer=tokenizer, is_split_into_words=True)
    assert listed[0].texts == ("a", "b")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("one text", "inputs is one string, but is_split_into_words=True"),
        (["a", ""], r"inputs\[0\]: word 1 is empty"),
        ([["a"], ["b", "\ud800"]], r"inputs\[1\]: word 1 holds the lone surrogate '\\ud800' at character 0"),
        ([["a"], []], r"inputs\[1\] has no words"),
        ([["a"], "b"], r"inputs\[0\] must be a list of words"),
        ([["a"], [1]], r"inputs\[1\] must be a list of words"),
        (([["a"]], ["b"], ["c"]), "inputs is a tuple of 3: a tuple of two lists of words is one pair"),
        ({"input_ids": [[2, 3]]}, "is_split_into_words=True is for lists of words; inputs is a mapping of tensors"),
        ([], "inputs is an empty list"),
    ],
)
def test_what_is_no_list_of_words_is_refused(demo, inputs, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(demo[0], inputs, tokenizer=demo[1], is_split_into_words=True)
