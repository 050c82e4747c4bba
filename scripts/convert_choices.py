#!/usr/bin/env python3
"""MMLU, ARC and TruthfulQA (mc1) as they are published -> the JSON lines that costs.choices reads (question, choices, answer).

    convert_choices.py mmlu abstract_algebra_test.csv [more.csv ...] --out mmlu.jsonl
    convert_choices.py arc ARC-Easy-Test.jsonl --out arc_easy.jsonl
    convert_choices.py truthfulqa mc_task.json --out truthfulqa.jsonl

Read are: of MMLU the .csv files of the archive (question, four choices, letter; no header), or .jsonl with question, choices and
answer; of ARC the .jsonl of the archive ({"question": {"stem", "choices": [{"text", "label"}]}, "answerKey"}) or of the Hub
({"question", "choices": {"text", "label"}, "answerKey"}); of TruthfulQA mc_task.json ([{"question", "mc1_targets": {TEXT: 0 or 1}}])
or .jsonl with mc1_targets {"choices", "labels"}. Questions are written as lm-evaluation-harness asks them without examples: of MMLU
with the choices A to D and a letter as the answer, of ARC "Question: ...", of TruthfulQA "Q: ..." (the harness puts the six
examples of TruthfulQA's paper in front: --prefix, with a file that holds them). --plain writes questions bare. Needs Python 3.9
and nothing else.
"""

import argparse
import csv
import json
import sys

class Bad(Exception):
    """What is wrong with a file, with its line."""


def rows_of(path):
    """(place, content) of each line: a list of fields of .csv, else an object. A .json file is one list."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        if path.endswith(".csv"):
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield f"{path}:{reader.line_num}", row
        elif path.endswith(".jsonl"):
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", parsed(line, f"{path}:{number}")
        elif path.endswith(".json"):
            found = parsed(file.read(), path)
            if not isinstance(found, list):
                raise Bad(f"{path}: expected a list of questions")
            yield from ((f"{path}: element {i}", row) for i, row in enumerate(found, 1))
        else:
            raise Bad(f"{path}: expected a .csv, .jsonl or .json file")


def parsed(text, place):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Bad(f"{place}: not valid JSON: {error.msg}") from None


def mmlu(row, plain):
    if isinstance(row, list):
        question, *choices, answer = row
        answer = "ABCD".index(answer)
    else:
        question, choices, answer = row["question"], row["choices"], row["answer"]
        answer = "ABCD".index(answer) if isinstance(answer, str) else answer
    if len(choices) != 4:
        raise ValueError
    if plain:
        return question, choices, answer
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", choices))
    return f"{question.strip()}\n{listed}Answer:", list("ABCD"), answer


def arc(row, plain):
    question, choices = row["question"], row.get("choices")
    if isinstance(question, dict):
        question, choices = question["stem"], question["choices"]
    if isinstance(choices, dict):
        texts, labels = choices["text"], choices["label"]
    else:
        texts, labels = [c["text"] for c in choices], [c["label"] for c in choices]
    return question if plain else f"Question: {question}\nAnswer:", texts, labels.index(row["answerKey"])


def truthfulqa(row, plain):
    targets = row["mc1_targets"]
    pairs = list(zip(targets["choices"], targets["labels"])) if "labels" in targets else list(targets.items())
    question = row["question"] if plain else f"Q: {row['question']}\nA:"
    if sum(label for _, label in pairs) != 1:
        raise ValueError
    return question, [text for text, _ in pairs], [label for _, label in pairs].index(1)


KINDS = {"mmlu": mmlu, "arc": arc, "truthfulqa": truthfulqa}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--prefix", metavar="FILE", help="text in front of each question, such as solved examples")
    parser.add_argument("--plain", action="store_true", help="questions and choices as they are, e.g. for chat_template: true")
    arguments = parser.parse_args()
    lines = []
    try:
        prefix = ""
        if arguments.prefix:
            with open(arguments.prefix, encoding="utf-8") as file:
                prefix = file.read()
        for path in arguments.files:
            for place, row in rows_of(path):
                try:
                    question, choices, answer = KINDS[arguments.kind](row, arguments.plain)
                except (KeyError, ValueError, TypeError, AttributeError):
                    raise Bad(f"{place}: not a question of {arguments.kind}") from None
                lines.append(json.dumps({"question": prefix + question, "choices": choices, "answer": answer}, ensure_ascii=False) + "\n")
        if not lines:
            raise Bad(f"{arguments.files[0]}: no questions")
    except (Bad, OSError) as error:
        sys.exit(f"convert_choices.py: {error}")
    with open(arguments.out, "w", encoding="utf-8") as out:
        out.writelines(lines)
    print(f"{arguments.out}: {len(lines)} questions")


if __name__ == "__main__":
    main()
