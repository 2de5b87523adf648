"""Texts from lists, files and data sets, and bounded samples of their states."""

from hf_attn_mi.data.files import load_folder, load_hub, read_file
from hf_attn_mi.data.reservoir import Reservoir
from hf_attn_mi.data.texts import NoTextColumnError, TextReader, read_rows, read_texts_of, text_columns, word_column

__all__ = [
    "NoTextColumnError",
    "Reservoir",
    "TextReader",
    "load_folder",
    "load_hub",
    "read_file",
    "read_rows",
    "read_texts_of",
    "text_columns",
    "word_column",
]
