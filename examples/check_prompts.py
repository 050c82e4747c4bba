#!/usr/bin/env python3
"""Checks the example prompt sets: form, counts, duplicates, and that the two sides of a concept match in length.

    examples/check_prompts.py                            # needs the Python standard library alone
    examples/check_prompts.py --tokenizer MODEL_FOLDER   # also compares token counts (needs `tokenizers`)

Prints one line for each problem, with file and line, and exits with 1 if there is one; 0 if all is well; 2 for wrong usage.
"""

import argparse
import collections
import json
import pathlib
import re
import sys
import unicodedata

# Folder, (positive, negative), prompts in each set, and whether a side may hold characters beyond ASCII.
CONCEPTS = [
    {"folder": "refusal", "sides": ("harmful", "harmless"), "counts": {"train": 160, "validation": 48, "test": 64},
     "beyond_ascii": set()},
    {"folder": "language", "sides": ("french", "english"), "counts": {"train": 64, "validation": 32, "test": 32},
     "beyond_ascii": {"french"}},
]
ALLOWED_KEYS = {"instruction", "category"}
NEAR_DUPLICATE = 0.8
# The direction must not encode prompt length, so the means of the two sides may differ by this share at the most.
LENGTH_TOLERANCE = 0.10
MIN_CHARACTERS, MAX_CHARACTERS = 12, 120
MIN_CATEGORIES = 5


def normalized_tokens(text):
    """Words in lower case without accents and punctuation, so that spelling does not hide a duplicate."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return frozenset(re.findall(r"[a-z0-9]+", "".join(c for c in decomposed if not unicodedata.combining(c))))


def jaccard(left, right):
    return len(left & right) / len(left | right) if left or right else 1.0


def reject_duplicate_keys(pairs):
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"key appears twice: {key!r}")
    return dict(pairs)


def load(path, problems):
    """Reads one file: `[`, an object on each line, `]`. Returns [(line number, instruction, category)]."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read as UTF-8: {error}")
        return []
    if text.startswith("\ufeff") or "\r" in text:
        problems.append(f"{path}: has a byte order mark or carriage returns")
    try:
        whole = json.loads(text)
    except ValueError as error:
        problems.append(f"{path}: not JSON: {error}")
        return []
    lines = text.rstrip("\n").split("\n")
    if not isinstance(whole, list) or len(lines) != len(whole) + 2 or lines[0] != "[" or lines[-1] != "]":
        problems.append(f"{path}: must be '[', one object a line, ']'")
        return []
    rows = []
    for number, line in enumerate(lines[1:-1], start=2):
        try:
            row = json.loads(line.rstrip(","), object_pairs_hook=reject_duplicate_keys)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}: {line}")
            continue
        if not isinstance(row, dict) or set(row) != ALLOWED_KEYS or not all(isinstance(v, str) for v in row.values()):
            problems.append(f"{path}:{number}: wants the keys instruction and category with texts: {line}")
            continue
        rows.append((number, row["instruction"], row["category"]))
    return rows


def check_rows(path, rows, beyond_ascii, problems):
    for number, text, category in rows:
        where = f"{path}:{number}"
        if text != " ".join(text.split()):
            problems.append(f"{where}: must be one line with single spaces: {text!r}")
        if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
            problems.append(f"{where}: {len(text)} characters, want {MIN_CHARACTERS} to {MAX_CHARACTERS}: {text!r}")
        if not beyond_ascii and not text.isascii():
            problems.append(f"{where}: not ASCII: {text!r}")
        if text != unicodedata.normalize("NFC", text) or not text.isprintable():
            problems.append(f"{where}: not printable text in Unicode normal form C: {text!r}")
        if not re.fullmatch(r"[a-z][a-z ]*", category):
            problems.append(f"{where}: category must be lower-case words: {category!r}")


def check_duplicates(entries, problems):
    """`entries` are all prompts of one concept: neither sets nor sides may share one."""
    tokens = [(where, text, normalized_tokens(text)) for where, text in entries]
    for i, (where, text, words) in enumerate(tokens):
        for other_where, other_text, other_words in tokens[:i]:
            score = jaccard(words, other_words)
            if score >= NEAR_DUPLICATE:
                kind = "duplicate" if words == other_words else f"near-duplicate ({score:.2f})"
                problems.append(f"{where}: {kind} of {other_where}: {text!r} and {other_text!r}")


def check_lengths(label, unit, positive, negative, problems):
    if not positive or not negative:
        return
    left, right = sum(positive) / len(positive), sum(negative) / len(negative)
    if abs(left - right) > LENGTH_TOLERANCE * max(left, right):
        problems.append(f"{label}: mean {unit} of the sides differ by more than {LENGTH_TOLERANCE:.0%}: "
                        f"{left:.2f} and {right:.2f}")


def check_concept(folder, concept, units, verbose, problems):
    """`units` are (name, function from text to number) whose means must match between the sides."""
    entries = []
    lengths = collections.defaultdict(list)
    for side in concept["sides"]:
        categories = set()
        for split, count in concept["counts"].items():
            path = folder / concept["folder"] / f"{side}_{split}.json"
            rows = load(path, problems)
            if len(rows) != count:
                problems.append(f"{path}: has {len(rows)} prompts, want {count}")
            check_rows(path, rows, side in concept["beyond_ascii"], problems)
            for number, text, category in rows:
                entries.append((f"{path}:{number}", text))
                categories.add(category)
                for unit, measure in units:
                    lengths[split, unit, side].append(measure(text))
        if len(categories) < MIN_CATEGORIES:
            problems.append(f"{folder / concept['folder']}: {side} has {len(categories)} categories, want {MIN_CATEGORIES}")
    check_duplicates(entries, problems)
    for split in concept["counts"]:
        for unit, _ in units:
            positive, negative = (lengths[split, unit, side] for side in concept["sides"])
            check_lengths(f"{folder / concept['folder']} {split}", unit, positive, negative, problems)
            if verbose and positive and negative:
                means = " and ".join(f"{sum(v) / len(v):.2f}" for v in (positive, negative))
                print(f"{concept['folder']} {split}: mean {unit}: {means}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent / "prompts",
                        help="folder with refusal/ and language/ (default: the prompts beside this script)")
    parser.add_argument("--tokenizer", type=pathlib.Path,
                        help="model folder with a tokenizer.json, to compare token counts too")
    parser.add_argument("--verbose", action="store_true", help="print the means that are compared")
    arguments = parser.parse_args()

    units = [("characters", len), ("words", lambda text: len(text.split()))]
    if arguments.tokenizer:
        try:
            import tokenizers
        except ImportError:
            parser.error("--tokenizer needs the Python package tokenizers")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))
        except Exception as error:  # The package raises Exception itself.
            parser.error(f"cannot read {arguments.tokenizer / 'tokenizer.json'}: {error}")
        units.append(("tokens", lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)))

    problems = []
    for concept in CONCEPTS:
        # Languages differ in words and tokens a sentence; there, only characters can match.
        matched = units if concept["folder"] == "refusal" else units[:1]
        check_concept(arguments.folder, concept, matched, arguments.verbose, problems)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    print("prompt sets are well formed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
