"""An app for Hugging Face Spaces: text in, report out. Run it with `python app.py`.

The environment variable MODEL names the model to start with: a Hub name, or a folder.
"""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_attn_mi import HfAttnMiError, report

MODEL = os.environ.get("MODEL", "distilbert/distilbert-base-uncased-finetuned-sst-2-english")
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
METHODS = ["relevance", "attnlrp", "attention", "effective"]
LONGEST = 2000  # characters
EXAMPLES = [
    "The plot is thin and the jokes are old, but the two leads are a joy to watch.",
    "It was not bad at all.",
    "One of the worst movies of the year!",
]


@lru_cache(maxsize=2)
def load(name: str) -> tuple[Any, Any]:
    """Return model and tokenizer; code of a repository is not run, and pickles are not read."""
    model = AutoModelForSequenceClassification.from_pretrained(name, use_safetensors=True)
    return model.eval(), AutoTokenizer.from_pretrained(name)


def explain_text(text: str, name: str, method: str) -> tuple[str, str]:
    """Return the sentence about the prediction and the report, in a frame of its own."""
    text, name = text.strip(), name.strip()
    if not text:
        raise gr.Error("Enter a text.")
    if len(text) > LONGEST:
        raise gr.Error(f"The text has {len(text)} characters; at most {LONGEST} are explained here.")
    if name != MODEL and (not HUB_NAME.fullmatch(name) or Path(name).exists()):  # visitors read no local files
        raise gr.Error("The model must be a name on the Hub, such as organization/model.")
    try:
        model, tokenizer = load(name)
    except Exception as error:  # transformers, tokenizers and huggingface_hub each have their own
        raise gr.Error(f"{name} could not be loaded: {str(error).splitlines()[0]}") from error
    try:
        page = report(model, text, tokenizer=tokenizer, method=method, truncation=True, subgraph=False)
    except HfAttnMiError as error:
        raise gr.Error(str(error)) from error
    return page.items[0].sentence, page._repr_html_()


def build() -> gr.Blocks:
    """Return the app."""
    with gr.Blocks(title="Which words made this prediction?") as app:
        gr.Markdown(
            "# Which words made this prediction?\n"
            "The report of hf_attn_mi on any text classifier of the Hub whose attention can be followed exactly."
        )
        text = gr.Textbox(label="Text", value=EXAMPLES[0], lines=3, max_length=LONGEST, elem_id="text")
        gr.Examples([[example] for example in EXAMPLES], inputs=[text])
        with gr.Row():
            name = gr.Textbox(label="Model (name on the Hub)", value=MODEL, elem_id="model")
            method = gr.Dropdown(METHODS, value=METHODS[0], label="Method", elem_id="method")
        button = gr.Button("Explain", variant="primary", elem_id="explain")
        sentence = gr.Textbox(label="Prediction", interactive=False, elem_id="sentence")
        page = gr.HTML(elem_id="report")
        button.click(explain_text, [text, name, method], [sentence, page], concurrency_limit=1)
    return app


if __name__ == "__main__":
    build().launch()
