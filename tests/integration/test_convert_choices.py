"""scripts/convert_choices.py on files as MMLU, ARC and TruthfulQA publish them; questions here are our own."""

import json
import subprocess
import sys

import pytest

import support

SCRIPT = support.ROOT / "scripts/convert_choices.py"


def convert(kind, files, out, *arguments):
    done = subprocess.run([sys.executable, SCRIPT, kind, *map(str, files), "--out", out, *arguments], capture_output=True, text=True)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return done, [json.loads(line) for line in lines]


ARC_ARCHIVE = {"id": "x1", "question": {"stem": "What melts?", "choices": [{"text": "ice", "label": "A"}, {"text": "a stone", "label": "B"}]},
               "answerKey": "A"}
ARC_HUB = {"question": "What flows?", "choices": {"text": ["a wall", "a river"], "label": ["1", "2"]}, "answerKey": "2"}
TRUTH_FILE = [{"question": "Can cats read?", "mc1_targets": {"They cannot": 1, "They can": 0}, "mc2_targets": {}}]
TRUTH_HUB = {"question": "Can cats read?", "mc1_targets": {"choices": ["They can", "They cannot"], "labels": [0, 1]}}
CASES = [
    ("mmlu", "a.csv", 'What is 1 + 1?,1,2,3,4,B\n"How, if at all, is ""x"" read?\nAloud?",a,b,c,d,D\n',
     [("What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:", ["A", "B", "C", "D"], 1),
      ('How, if at all, is "x" read?\nAloud?\nA. a\nB. b\nC. c\nD. d\nAnswer:', ["A", "B", "C", "D"], 3)]),
    ("mmlu", "a.jsonl", json.dumps({"question": "1?", "choices": list("wxyz"), "answer": 2}) + "\n",
     [("1?\nA. w\nB. x\nC. y\nD. z\nAnswer:", ["A", "B", "C", "D"], 2)]),
    ("arc", "a.jsonl", json.dumps(ARC_ARCHIVE) + "\n\n" + json.dumps(ARC_HUB),
     [("Question: What melts?\nAnswer:", ["ice", "a stone"], 0), ("Question: What flows?\nAnswer:", ["a wall", "a river"], 1)]),
    ("truthfulqa", "a.json", json.dumps(TRUTH_FILE), [("Q: Can cats read?\nA:", ["They cannot", "They can"], 0)]),
    ("truthfulqa", "a.jsonl", json.dumps(TRUTH_HUB), [("Q: Can cats read?\nA:", ["They can", "They cannot"], 1)]),
]


@pytest.mark.parametrize("kind, name, content, expected", CASES)
def test_published_files(tmp_path, kind, name, content, expected):
    (tmp_path / name).write_text(content, encoding="utf-8")
    done, lines = convert(kind, [tmp_path / name], tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert [(line["question"], line["choices"], line["answer"]) for line in lines] == expected
    assert f"{len(expected)} questions" in done.stdout


def test_plain_questions_and_a_prefix(tmp_path):
    (tmp_path / "a.csv").write_text("1 + 1?,1,2,3,4,B\n")
    (tmp_path / "before.txt").write_text("Think.\n")
    _, [line] = convert("mmlu", [tmp_path / "a.csv"] , tmp_path / "out.jsonl", "--plain", "--prefix", tmp_path / "before.txt")
    assert line == {"question": "Think.\n1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1}


@pytest.mark.parametrize("kind, name, content, message", [
    ("mmlu", "a.csv", "1 + 1?,1,2,3,4,B\nno,choices\n", "a.csv:2: not a question of mmlu"),
    ("arc", "a.jsonl", json.dumps({**ARC_HUB, "answerKey": "3"}), "a.jsonl:1: not a question of arc"),
    ("truthfulqa", "a.json", json.dumps([{"question": "Q", "mc1_targets": {"a": 1, "b": 1}}]), "element 1: not a question"),
    ("truthfulqa", "a.json", "{", "a.json: not valid JSON"),
    ("arc", "a.jsonl", "\n", "no questions"),
    ("arc", "a.parquet", "", "expected a .csv, .jsonl or .json file"),
])
def test_mistakes_name_file_and_line(tmp_path, kind, name, content, message):
    (tmp_path / name).write_text(content)
    done, lines = convert(kind, [tmp_path / name], tmp_path / "out.jsonl")
    assert done.returncode == 1 and message in done.stderr and not lines
