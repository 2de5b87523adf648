"""AttnLRP of the package lxt: `lxt.efficient.monkey_patch(modeling_bert)`, then input x gradient of the class logit.

This is how its README does it. The patch replaces transformers' BERT by a copy of an older one: lxt 2.1 cannot be
imported with transformers 5 (`find_pruneable_heads_and_indices` is gone); its README names 4.52.4.

    pip install lxt transformers==4.52.4 torchvision
"""

from __future__ import annotations

import exchange
import transformers
from lxt.efficient import monkey_patch
from transformers.models.bert import modeling_bert


def make(name: str) -> dict[str, exchange.Explainer]:
    """The explainer; refuses models that are not BERT's."""
    kind = transformers.AutoConfig.from_pretrained(name).model_type
    if kind != "bert":
        raise SystemExit(f"the adapter patches BERT; the model is {kind}")
    monkey_patch(modeling_bert)
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    model = modeling_bert.BertForSequenceClassification.from_pretrained(name, torch_dtype="float32").eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def explain(text: str, target: int) -> tuple[list[int], list[float]]:
        batch = dict(tokenizer(text, return_tensors="pt"))
        ids = batch.pop("input_ids")
        embeddings = model.get_input_embeddings()(ids).requires_grad_()
        model(inputs_embeds=embeddings, **batch).logits[0, target].backward()
        return ids[0].tolist(), (embeddings * embeddings.grad).sum(-1)[0].tolist()

    return {"lxt AttnLRP": explain}


if __name__ == "__main__":
    exchange.serve(make, ("lxt", "torchvision"), "lxt.efficient.monkey_patch(modeling_bert), logit of the class")
