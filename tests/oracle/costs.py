"""Cross-entropy, KL over tokens, multiple choice and exact match from transformers, as plainly as they can be written: one forward
for each row, whole rows of logits in float64, no shared prefix, no batch. Nothing here is taken from Bearing."""

import math
import re

import torch

import plain_model


@torch.inference_mode()
def log_probabilities(model, tokens, first):
    """log p of the next token, float64 [len(tokens) - first, V]: row i is what predicts tokens[first + i]."""
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()
    return torch.log_softmax(logits, -1)[first - 1:len(tokens) - 1]


def score(model, rows, interventions, kl_tokens=0):
    """rows: [(tokens, first)]. interventions: [context manager factory], the first is the baseline. Returns log-likelihoods
    [intervention][row] and, for each but the first, KL [intervention][row][token]."""
    found, base, kl = [], None, []
    for steered in interventions:
        with steered():
            of_rows = [log_probabilities(model, tokens, first) for tokens, first in rows]
        found.append([log_p.gather(1, torch.tensor(tokens[first:]).unsqueeze(1)).sum().item()
                      for log_p, (tokens, first) in zip(of_rows, rows)])
        if base is None:
            base = of_rows
        kl.append([(b.exp() * (b - p)).sum(-1)[:kl_tokens].tolist() for b, p in zip(base, of_rows)])
    return found, kl


def text_row(tokenizer, text, max_tokens):
    return tokenizer(text)["input_ids"][:max_tokens], 1


def completion_row(tokenizer, instruction, response, system=None):
    prompt = plain_model.token_ids(tokenizer, [instruction], system)[0]
    return prompt + tokenizer(response, add_special_tokens=False)["input_ids"], len(prompt)


def choice_rows(tokenizer, question, choices, delimiter=" "):
    """Each choice behind the question, split where the question alone ends."""
    rows = []
    for choice in choices:
        stripped = question.rstrip()
        whole = tokenizer(question + delimiter + choice)["input_ids"]
        context = tokenizer(stripped)["input_ids"]
        rows.append((context + whole[len(context):], len(context)))
    return rows


def ratio(sizes, sums):
    """(value, standard error): a ratio of sums, with the error of a sample of items."""
    value, n = sum(sums) / sum(sizes), len(sizes)
    residuals = sum((s - value * size) ** 2 for s, size in zip(sums, sizes))
    return value, math.sqrt(n / (n - 1) * residuals) / sum(sizes)


def number(text):
    """The first number behind "####", else the last number; without commas, as a float."""
    where = text.rsplit("####", 1)
    found = re.findall(r"(?<![\w.])-?\$?\d[\d,]*(?:\.\d+)?", where[-1] if len(where) > 1 else text)
    if not found:
        return None
    return float((found[0] if len(where) > 1 else found[-1]).replace(",", "").replace("$", ""))
