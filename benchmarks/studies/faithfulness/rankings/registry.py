"""The rankings of other papers by their names in tables."""

from benchmarks.studies.faithfulness.rankings.alti import alti
from benchmarks.studies.faithfulness.rankings.atman import atman
from benchmarks.studies.faithfulness.rankings.attcat import attcat
from benchmarks.studies.faithfulness.rankings.attention_gradients import generic_attention, gradient_x_attention
from benchmarks.studies.faithfulness.rankings.gim import gim
from benchmarks.studies.faithfulness.rankings.globenc import globenc
from benchmarks.studies.faithfulness.rankings.libragrad import libragrad
from benchmarks.studies.faithfulness.rankings.position_lrp import position_lrp
from benchmarks.studies.faithfulness.rankings.transformer_attribution import transformer_attribution

RANKINGS = {  # (model, token ids, class) -> one score for each token
    "GIM": gim,
    "LibraGrad": libragrad,
    "position-aware LRP": position_lrp,
    "transformer attribution": transformer_attribution,
    "generic attention": generic_attention,
    "gradient x attention": gradient_x_attention,
    "AttCAT": attcat,
    "AtMan": atman,
    "ALTI": alti,
    "GlobEnc": globenc,
}
