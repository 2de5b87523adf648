"""Words of targets in tokenizers that write the blank in front of a word, bytes or lower case in their own way."""

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForTokenClassification,
    XLMRobertaForMaskedLM,
)

from hf_attn_mi import InvalidInputError, explain, targets
from tests.sample_models import SIZES
from tests.zoo.building import rescale

CORPUS = ["The capital is Paris and the film was made in Paris.", "Paris is warm.", "Hans Müller in München"] * 30
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)]
NAMES = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
NAMES |= {"unk_token": "<unk>", "model_input_names": ["input_ids", "attention_mask"]}
ROBERTA = {**SIZES, "vocab_size": 700, "intermediate_size": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
LABELS = {"id2label": {0: "O", 1: "B-LOC"}, "label2id": {"O": 0, "B-LOC": 1}}


@pytest.fixture(scope="module")
def byte_level():
    """A tokenizer like RoBERTa's: "Paris" and " Paris" are two tokens, and the mask takes the blank in front of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=SPECIAL[-1], **NAMES)


@pytest.fixture(scope="module")
def sentence_piece():
    """A tokenizer that puts a blank in front of every text, like those of XLM-RoBERTa and Llama."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=SPECIAL[-1], **NAMES)


def tiny(model_class, config):
    torch.manual_seed(0)
    model = model_class(config)
    rescale(model)
    return model.eval()


def contrast(logits, chosen):
    logits = logits.double()
    return float(logits[chosen] - (logits.sum() - logits[chosen]) / (len(logits) - 1))


def masked_logits(model, tokenizer, text):
    inputs = tokenizer(text, return_tensors="pt")
    place = int((inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[0])
    with torch.no_grad():
        return model(**inputs).logits[0, place]


@pytest.mark.parametrize(
    ("text", "word", "token"),
    [
        ("The capital is <mask>.", "Paris", "ĠParis"),
        ("The capital is <mask>.", " Paris", "ĠParis"),
        ("<mask> is warm.", "Paris", "Paris"),
        ("The capital is the-<mask>.", "Paris", "Paris"),
    ],
)
def test_a_word_for_a_mask_has_the_blank_that_the_mask_has_taken(byte_level, text, word, token):
    model = tiny(RobertaForMaskedLM, RobertaConfig(**ROBERTA))
    logits, number = masked_logits(model, byte_level, text), byte_level.convert_tokens_to_ids(token)
    one = explain(model, text, tokenizer=byte_level, target=targets.mask(word), layers="none")
    assert one.target == number
    assert one.value == pytest.approx(contrast(logits, number), abs=1e-4)
    among = explain(model, text, tokenizer=byte_level, target=targets.mask(among=(word,)), layers="none")
    assert among.target == number


def test_tensors_without_a_text_take_the_blank_behind_other_tokens(byte_level):
    model = tiny(RobertaForMaskedLM, RobertaConfig(**ROBERTA))
    for text, token in (("The capital is <mask>.", "ĠParis"), ("<mask> is warm.", "Paris")):
        inputs = dict(byte_level(text, return_tensors="pt"))
        one = explain(model, inputs, tokenizer=byte_level, target=targets.mask("Paris"), layers="none")
        assert one.target == byte_level.convert_tokens_to_ids(token)


@pytest.mark.parametrize("word", ["Paris", " Paris"])
def test_a_blank_is_allowed_where_the_tokenizer_puts_one_in_front(sentence_piece, word):
    number = sentence_piece.convert_tokens_to_ids("▁Paris")
    assert number != sentence_piece.unk_token_id
    model = tiny(XLMRobertaForMaskedLM, XLMRobertaForMaskedLM.config_class(**ROBERTA))
    text = "The capital is <mask>."
    one = explain(model, text, tokenizer=sentence_piece, target=targets.mask(word), layers="none")
    assert one.value == pytest.approx(contrast(masked_logits(model, sentence_piece, text), number), abs=1e-4)
    sizes = {**ROBERTA, "num_key_value_heads": 2}
    decoder = tiny(LlamaForCausalLM, LlamaConfig(**sizes))
    one = explain(decoder, "The capital is", tokenizer=sentence_piece, target=targets.next_token(word), layers="none")
    with torch.no_grad():
        logits = decoder(**sentence_piece("The capital is", return_tensors="pt")).logits[0, -1]
    assert one.value == pytest.approx(contrast(logits, number), abs=1e-4)


def test_words_of_several_tokens_are_still_refused(byte_level, sentence_piece):
    model = tiny(RobertaForMaskedLM, RobertaConfig(**ROBERTA))
    for tokenizer in (byte_level, sentence_piece):
        for word in ("Parisians", " Parisians"):
            with pytest.raises(InvalidInputError, match="is not a single token"):
                explain(model, "The capital is <mask>.", tokenizer=tokenizer, target=targets.mask(word))


def test_words_of_tensors_are_found_as_the_tokenizer_writes_them(byte_level, demo):
    text = "Hans Müller in München"
    roberta = tiny(RobertaForTokenClassification, RobertaConfig(**ROBERTA, **LABELS))
    bert = tiny(BertForTokenClassification, BertConfig(**SIZES, intermediate_size=64, **LABELS))
    for model, tokenizer, name in ((roberta, byte_level, "München"), (bert, demo[1], "m")):
        inputs = tokenizer(text, return_tensors="pt")
        place = inputs.char_to_token(0, text.index("München"))
        one = explain(
            model, dict(inputs), tokenizer=tokenizer, target=targets.token(word="München", label=1), layers="none"
        )
        with torch.no_grad():
            logits = model(**inputs).logits[0, place]
        assert one.value == pytest.approx(contrast(logits, 1), abs=1e-5)
        assert one.target_name.startswith(f"B-LOC of '{name}")
