"""Small encoders whose mechanism is known: the label of a marked token reaches the classifier through chosen heads."""

import torch
from torch import nn

FEATURES = ("first", "mark", "pointer", "label0", "label1", "copied0", "copied1", "read0", "read1")
PLACE = {name: i for i, name in enumerate(FEATURES)}
FIRST, LABEL0, LABEL1, POINTER, NOISE = 0, 1, 2, 3, 4  # token ids; from NOISE on they mean nothing
TOKENS = {FIRST: ["first"], LABEL0: ["mark", "label0"], LABEL1: ["mark", "label1"], POINTER: ["pointer"]}


class Layer(nn.Module):
    """Attention heads and a residual connection; `heads` are (query feature, key feature, from, to) or None."""

    def __init__(self, heads, sharpness=12.0):
        super().__init__()
        width, self.count = len(FEATURES), len(heads)
        self.query, self.key, self.value = (nn.Linear(width, self.count * width, bias=False) for _ in range(3))
        self.output = nn.Linear(self.count * width, width, bias=False)
        with torch.no_grad():
            for linear in (self.query, self.key, self.value, self.output):
                linear.weight.zero_()
            for number, head in enumerate(heads):
                if head is None:
                    continue
                at, (query, key, source, goal) = number * width, head
                self.query.weight[at, PLACE[query]] = sharpness
                self.key.weight[at, PLACE[key]] = 1.0
                for label in "01":
                    self.value.weight[at + PLACE[source + label], PLACE[source + label]] = 1.0
                    self.output.weight[PLACE[goal + label], at + PLACE[source + label]] = 1.0

    def forward(self, states):
        def split(linear):
            return linear(states).unflatten(-1, (self.count, -1)).transpose(1, 2)

        rows = (split(self.query) @ split(self.key).transpose(-1, -2)).softmax(-1)
        mixed = (rows @ split(self.value)).transpose(1, 2).flatten(2)
        return states + self.output(mixed)


class Planted(nn.Module):
    """Reads the class off the state of the first token; without attention it answers class 1."""

    def __init__(self, *layers):
        super().__init__()
        self.embedding = nn.Embedding(10, len(FEATURES))
        self.layers = nn.ModuleList(Layer(heads) for heads in layers)
        self.classifier = nn.Linear(len(FEATURES), 2)
        with torch.no_grad():
            self.embedding.weight.zero_()
            for token, names in TOKENS.items():
                for name in names:
                    self.embedding.weight[token, PLACE[name]] = 1.0
            self.classifier.weight.zero_()
            self.classifier.bias.copy_(torch.tensor([0.0, 1.5]))
            for row, sign in ((0, 1.0), (1, -1.0)):
                self.classifier.weight[row, PLACE["read0"]] = 3 * sign
                self.classifier.weight[row, PLACE["read1"]] = -3 * sign
        self.eval()

    def forward(self, input_ids, attention_mask=None):
        states = self.embedding(input_ids)
        for layer in self.layers:
            states = layer(states)
        return self.classifier(states[:, 0])


DIRECT = ("first", "mark", "label", "read")
TO_POINTER, FROM_POINTER = ("pointer", "mark", "label", "copied"), ("first", "pointer", "copied", "read")
IDS = torch.tensor([[FIRST, 5, 6, LABEL0, 7, POINTER, 8, 4]])
MARK_AT, POINTER_AT = 3, 5
MECHANISMS = {  # heads of each layer, and the weights that matter: (layer, head, query, key)
    "one head copies the label": ([[None, DIRECT, None], [None, None, None]], {(0, 1, 0, MARK_AT)}),
    "a head of the second layer": ([[None, None], [None, DIRECT]], {(1, 1, 0, MARK_AT)}),
    "two redundant heads": ([[DIRECT, None, DIRECT]], {(0, 0, 0, MARK_AT), (0, 2, 0, MARK_AT)}),
    "redundant heads in two layers": ([[DIRECT, None], [None, DIRECT]], {(0, 0, 0, MARK_AT), (1, 1, 0, MARK_AT)}),
    "a look-up through two layers": (
        [[TO_POINTER, None], [None, FROM_POINTER]],
        {(0, 0, POINTER_AT, MARK_AT), (1, 1, 0, POINTER_AT)},
    ),
}
