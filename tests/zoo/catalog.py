"""The architectures: every classifier in transformers, further encoders, the encoders of encoder-decoders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

Kind = Literal["encoder", "encoder-decoder", "decoder"]


@dataclass(frozen=True)
class Job:
    """One architecture to try.

    `auto` says which class is built: "seqcls", "imgcls" and "audcls" the classifier, "base" the bare model,
    "enc" the encoder half of an encoder-decoder. `kind` describes what is built: an "enc" job is an encoder.
    """

    auto: str
    model_type: str
    kind: Kind

    @property
    def name(self) -> str:
        return f"{self.auto}-{self.model_type}"


# Encoders that none of the classification, masked-language-model or text-encoding mappings of transformers lists.
FURTHER_ENCODERS = """
aimv2_vision_model audioflamingo3_encoder bert-generation blip_2_qformer bros chinese_clip_vision_model
clip_text_model clip_vision_model dinov3_vit dpr glpn internvl_vision lasr_encoder lxmert mgp-str parakeet_encoder
patchtsmixer patchtst pe_audio_encoder pixtral qwen2_audio_encoder sam2_vision_model sam_vision_model
siglip2_vision_model siglip_vision_model splinter timesfm timesformer tipsv2_text_model tipsv2_vision_model univnet
videomae videoprism_vision_model vilt visual_bert vit_mae vitdet vivit vjepa2 voxtral_encoder xclip
"""
FURTHER_ENCODER_DECODERS = """
autoformer bigbird_pegasus blenderbot blenderbot-small fsmt informer led longt5 m2m_100 marian moonshine nllb-moe
pegasus pegasus_x prophetnet seamless_m4t speech_to_text speecht5 switch_transformers time_series_transformer udop
"""
# Listed under causal language models, yet every token sees every other one (xlnet without a permutation mask).
NOT_CAUSAL = frozenset({"xlnet", "bert-generation"})
# Causal although no mapping of causal language models names them.
CAUSAL = frozenset({"imagegpt", "mistral4", "shieldgemma2", "molmo2_text", "clip_text_model", "timesfm"})
# The encoder is a plain module without a configuration: its "enc" job is the whole encoder-decoder.
WHOLE_MODEL = frozenset({"fsmt"})
# Why a type cannot be built, and what is special about some that can be.
CANNOT_BUILD = {
    "dinat": "needs natten2dqkrpb and natten2dav, which current releases of natten no longer have",
    "layoutlmv2": "needs detectron2, which is not on the Python package index",
}
NOTES = {
    "autoformer": "no padding: the encoder cannot apply a mask to its autocorrelations",
    "fsmt": "encoder and decoder together: the encoder alone is no PreTrainedModel",
    "informer": "no padding: the encoder halves its length; not deterministic: every forward draws keys at random",
    "nystromformer": "no padding: with a mask the landmark attention of transformers raises",
    "patchtsmixer": "self_attn switched on: the default configuration has no attention",
    "vilt": "image_embeds instead of pixel_values: patches of pixel_values are shuffled on every forward",
    "vit_mae": "fixed noise: otherwise every forward hides other patches",
}
SEES_IMAGES_TOO = "emu3 gemma3 layoutlmv3 llama4 mllama modernvbert qwen3_5 t5gemma2 udop visual_bert"
TEXT_ONLY = dict.fromkeys(SEES_IMAGES_TOO.split(), "text only: no image is passed")


def jobs() -> tuple[Job, ...]:
    """Every architecture, in the order of transformers' own mappings."""
    classifiers = {
        "seqcls": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "imgcls": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "audcls": modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    }
    classified = {model_type for names in classifiers.values() for model_type in names}
    text_encoders = {
        *modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    }
    pairs = [(auto, model_type) for auto, names in classifiers.items() for model_type in names]
    models = modeling_auto.MODEL_MAPPING_NAMES
    bare = text_encoders.union(FURTHER_ENCODERS.split()) - classified
    pairs += [("base", name) for name in models if name in bare and not _is_encoder_decoder(name)]
    halves = text_encoders.union(classified, FURTHER_ENCODER_DECODERS.split())
    pairs += [("enc", name) for name in models if name in halves and _is_encoder_decoder(name)]
    return tuple(Job(auto, model_type, _kind(auto, model_type)) for auto, model_type in pairs)


def _kind(auto: str, model_type: str) -> Kind:
    if auto == "enc" and model_type not in WHOLE_MODEL:
        return "encoder"
    if _is_encoder_decoder(model_type):
        return "encoder-decoder"
    causal = set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    two_sided = set(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES) | NOT_CAUSAL
    return "decoder" if model_type in CAUSAL or model_type in causal - two_sided else "encoder"


@cache
def _is_encoder_decoder(model_type: str) -> bool:
    # Read from the class, since some configurations refuse to be built without arguments (informer).
    return bool(getattr(CONFIG_MAPPING[model_type], "is_encoder_decoder", False))
