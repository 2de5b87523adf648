"""One small result of each kind, made by hand."""

from dataclasses import replace

import torch

from hf_attn_mi.evaluation import Estimate, RankMatrix
from hf_attn_mi.results import (
    AttentionDetail,
    AttentionLinks,
    AttentionMaps,
    AttentionModule,
    AttentionSubgraph,
    AttentionUnit,
    Certificate,
    ClassOutput,
    ClassWord,
    Comparison,
    CorpusSummary,
    DatasetRun,
    DeeperRemovals,
    ErrorWord,
    Explanation,
    FamilyMember,
    HeadDetail,
    LayerAttention,
    LayerCertificate,
    MethodCost,
    OpposingWord,
    OutputChange,
    Removal,
    RemovalCheck,
    Report,
    ReportItem,
    Span,
    TokenSet,
    UnitRemoval,
    WeightInterval,
)
from hf_attn_mi.results.report_parts import pack_matrices
from tests.tasks import sample_profile


def layer_attention(heads=2, tokens=5, *, n=5, rank=5, support_size=None, layer=0):
    generator = torch.Generator().manual_seed(layer)
    return LayerAttention(
        layer=layer,
        name=f"bert.encoder.layer.{layer}.attention.self",
        n=n,
        head_dim=32,
        rank=torch.full((heads,), rank),
        null_space_fraction=torch.rand(heads, generator=generator),
        entropy=torch.rand(heads, generator=generator),
        received=torch.rand(heads, tokens, generator=generator),
        received_effective=torch.randn(heads, tokens, generator=generator),
        support_size=support_size,
    )


def explanation(**changes):
    """Two pieces of one word, then another word, between special tokens."""
    values = {
        "tokens": ("[CLS]", "un", "##believable", "film", "[SEP]"),
        "scores": torch.tensor([0.5, 0.25, 0.5, -0.125, 1.0]),
        "target": 1,
        "target_name": "positive",
        "probability": 0.75,
        "texts": ("Unbelievable  film!",),
        "offsets": ((0, 0), (0, 2), (2, 12), (14, 18), (0, 0)),
        "sequence_ids": (None, 0, 0, 0, None),
        "word_ids": (None, 0, 0, 1, None),
        "special": (True, False, False, False, True),
        "layers": (layer_attention(), layer_attention(layer=1, support_size=torch.tensor([2.5, 3.0]))),
        "completeness_gap": 1e-6,
        "information": {"mi": [0.5, None]},
        "info": {"model": "m", "method": "relevance", "versions": {"torch": "2"}, "warnings": []},
    }
    return Explanation(**{**values, **changes})


NO_CHANGE = OutputChange(0.0, 1e-7, 0.0, 0.0, True)
LAYER = LayerCertificate(
    layer=0,
    name="bert.encoder.layer.0.attention.self",
    heads=2,
    rows=20,
    changed=14,
    keys=10,
    support_mean=4.5,
    support_max=6,
    dropped=0.55,
    relative_change=0.4,
    residual=1e-12,
    sum_error=1e-13,
    own_sum_error=1e-7,
    smallest_weight=0.001,
    checked=8,
    necessity=0.02,
)


def certificate(**changes):
    values = {
        "form": "efficient",
        "tolerance": 0.0,
        "output": "logits",
        "scale": 3.5,
        "rounding": 1e-3,
        "tokens": 10,
        "texts": ("a quietly moving film",),
        "target": 1,
        "target_name": "positive",
        "probability": 0.9,
        "change": NO_CHANGE,
        "layers": (LAYER, replace(LAYER, layer=1, name="bert.encoder.layer.1.attention.self")),
        "checked": 16,
        "checked_keys": 70,
        "necessity": 0.02,
        "necessity_median": 0.3,
        "controls": {"null-space noise": NO_CHANGE, "uniform": replace(NO_CHANGE, relative=0.5, kept=False)},
        "notes": ("Only layers [0, 1] were replaced.",),
        "info": {"model": "m", "seed": 0},
    }
    return Certificate(**{**values, **changes})


def token_set(**changes):
    values = {
        "tokens": ("[CLS]", "a", "joy", "[SEP]"),
        "texts": ("a joy",),
        "special": (True, False, False, True),
        "indices": (2,),
        "spans": (Span("joy", 2, 5, 0, (2,)),),
        "words": (Span("joy", 2, 5, 0, (2,)),),
        "target": 1,
        "target_name": "positive",
        "p_all": 0.95,
        "p_set": 0.94,
        "p_rest": 0.4,
        "p_special": 0.5,
        "rest_same": False,
        "singles": (Removal(2, "joy", 0.5, 0.95, True, True, "both"),),
        "defined": True,
        "minimal": True,
        "keep": 0.9,
        "jaccard": 1.0,
        "second_ranking": {"ranking": "random", "indices": [2]},
        "info": {"seconds": [0.25, 1.5]},
    }
    return TokenSet(**{**values, **changes})


def subgraph(**changes):
    """Two weights of two heads in two layers, with everything that can be asked for."""
    names = ("bert.encoder.layer.0.attention.self", "bert.encoder.layer.1.attention.self")
    values = {
        "tokens": ("[CLS]", "a", "joy", "[SEP]"),
        "texts": ("a joy",),
        "unit": "edge",
        "units": (
            AttentionUnit("layer 0 head 1: 'a' <- 'joy'", 0, 0, 1, 1, 2, 0.25, 1.5),
            AttentionUnit("layer 1 head 0: '[CLS]' <- 'a'", 1, 1, 0, 0, 1, 0.5, 2.0),
        ),
        "unit_count": 64,
        "attention": tuple(AttentionModule(layer, name, 0, 2, 4, 4) for layer, name in enumerate(names)),
        "edge_count": 64,
        "target": 1,
        "target_name": "positive",
        "p_all": 0.95,
        "p_set": 0.94,
        "p_rest": 0.4,
        "p_none": 0.45,
        "rest_same": False,
        "needs_attention": True,
        "singles": (UnitRemoval(0, 0.5, 0.4, True, False, "set"), UnitRemoval(1, 0.94, 0.9, True, True, "rest")),
        "group_size": 1,
        "keep": 0.9,
        "strict": True,
        "removals": (RemovalCheck("mean", 0.93, 0.6, 0.5, True, True, False),),
        "deeper": DeeperRemovals(1, 0, True, 1, 0),
        "family_members": (FamilyMember("relevance", 0, ((0, 1, 1, 2),), 0.92, 0.3, 1, 12, 8.5),),
        "sequences": 20,
        "forwards": 17.5,
        "inputs": {"input_ids": torch.tensor([2, 5, 6, 3])},
        "info": {"model": "m", "seed": 0},
    }
    return AttentionSubgraph(**{**values, **changes})


def comparison(columns=None, *, metric="comprehensiveness", **parts):
    """A comparison of these values in one metric."""
    if columns is None:
        columns = {"a": [0.5, 0.6, 0.7], "random": [0.1, 0.1, None]}
        parts.setdefault("costs", {"a": MethodCost(0.01, 1, 1)})
        parts.setdefault("info", {"model": "m"})
    none = tuple((Estimate(None, None, 0),) * len(columns) for _ in columns)
    values = {name: {metric: tuple(column)} for name, column in columns.items()}
    return Comparison.from_values(values, (metric,), RankMatrix(tuple(columns), none), **parts)


def attention_maps(**changes):
    generator = torch.Generator().manual_seed(0)
    values = {
        "kind": "efficient",
        "tokens": ("[CLS]", "a", "[SEP]"),
        "layers": (0, 3),
        "names": ("layer.0", "layer.3"),
        "heads": (1,),
        "matrices": tuple(torch.rand(1, 3, 3, generator=generator) for _ in range(2)),
        "residual": (torch.zeros(1, 3), torch.zeros(1, 3)),
        "support": (torch.full((1, 3), 2), torch.full((1, 3), 3)),
        "info": {"model": "m"},
    }
    return AttentionMaps(**{**values, **changes})


def report(**changes):
    """One input, two classes, two heads, one of them with matrices."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(5, 5, generator=generator).softmax(1)
    scale, packed = pack_matrices([raw, raw - 0.1, raw])
    places = torch.arange(5)[:, None]
    head = HeadDetail(0, 1, 0.25, 2, (WeightInterval(1, 0.2, 0.1, 0.5),), tuple(range(5)), (5,) * 5, scale, **packed)
    links = AttentionLinks(places, torch.ones(5, 1), places, torch.ones(5, 1))
    item = ReportItem(
        classes=(ClassOutput(0, "negative", 0.25, -1.0), ClassOutput(1, "positive", 0.75, 1.0)),
        explanations=(explanation(), explanation(target=0, target_name="negative", probability=0.25, layers=())),
        methods=(explanation(info={"model": "m", "method": "attention", "class_linked": False}),),
        value=1.0,
        label="negative",
        token_set=token_set(
            tokens=explanation().tokens, special=explanation().special, indices=(1, 2), target_name="positive"
        ),
        certificate=certificate(),
        attention=AttentionDetail((HeadDetail(0, 0, -0.5, 0), head), links, "one head is left out"),
        subgraph=subgraph(),
        notes={"lime": "not installed"},
    )
    values = {"items": (item,), "comparison": comparison(), "info": {"model": "m", "method": "relevance"}}
    return Report(**{**values, **changes})


def corpus_summary():
    """Two classes with a word each, a word of errors, and one that speaks against its class."""
    words = tuple(
        ClassWord(word, name, 20, 22, 1.5, (1.25, 1.75), 0.125, 0.001, 0.002, (f"a {word} film",))
        for word, name in (("funny", "positive"), ("dull", "negative"))
    )
    error = ErrorWord("but", "positive", 12, 30, 0.5, -0.25, 0.75, (0.25, 1.25), 0.01, 0.02, ("but dull",))
    opposing = OpposingWord("not", "positive", 0.75, 15, -0.5, (-0.75, -0.25), None, None)
    classes = ("positive", "negative")
    return CorpusSummary(100, classes, (60, 40), 0.875, words, (error,), (opposing,), 12, 10, {"model": "m"})


SAMPLES = {
    "explanation": explanation(),
    "layer": layer_attention(),
    "certificate": certificate(),
    "token set": token_set(),
    "attention subgraph": subgraph(),
    "comparison": comparison(),
    "profile": sample_profile.made(),
    "summary": corpus_summary(),
    "data set run": DatasetRun("out", "1f2e3d4c", 2000, 1, 2, 0, 2000, 10.0, 2**30, 2**20, 2, info={"model": "m"}),
    "maps": attention_maps(),
    "report": report(),
}
