"""Writes data/qwen1/qwen.tiktoken and data/qwen_expected.json: what tiktoken makes of conversations in Qwen-1's format.

    python make_qwen_golden.py MODELS     MODELS holds qwen2.5-coder-0.5b-instruct/

The small vocabulary is trained here. The large one is Qwen's own, whose ranks are the ids of the demo model's tokenizer.json.
For each conversation of data/conversations.json the expectation is the number of tokens and the sha256 of the ids. Needs the
package tiktoken.
"""

import argparse
import base64
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path

import regex
import tiktoken
import transformers

from make_conversations import CODE, EMOJI, MARKS, SCRIPTS, SPACES, digest, one_per_line, prose

DATA = Path(__file__).parent / "data"
NUM_MERGES = 400
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# A token that no merge makes: only a whole word finds it.
WHOLE_WORD = "Qzxj"


def train() -> list[bytes]:
    """Byte pair encoding: the most frequent pair, of equally frequent ones the smallest."""
    rng = random.Random(11)
    texts = [prose(rng) for _ in range(150)] + (SCRIPTS + MARKS + EMOJI + SPACES + CODE) * 3
    words = Counter(word for text in texts for word in regex.findall(WORDS, unicodedata.normalize("NFC", text)))
    parts = {word: [bytes([byte]) for byte in word.encode()] for word in words}
    # Any order of the single bytes will do; Qwen's is not that of their values either.
    tokens = [bytes([(byte + 33) % 256]) for byte in range(256)]
    for _ in range(NUM_MERGES):
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(parts[word], parts[word][1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        joined = best[0] + best[1]
        assert joined not in tokens
        tokens.append(joined)
        for word, old in parts.items():
            new = []
            for part in old:
                if new and (new[-1], part) == best:
                    new[-1] = joined
                else:
                    new.append(part)
            parts[word] = new
    return tokens + [WHOLE_WORD.encode()]


def qwen_tokens(folder: Path) -> list[bytes]:
    """The tokens of a byte-level vocabulary, by id."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tokens = [b""] * len(vocab)
    for text, rank in vocab.items():
        tokens[rank] = bytes(byte_of[char] for char in text)
    return tokens


def encoding(tokens: list[bytes]) -> tiktoken.Encoding:
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{number}|>" for number in range(205)]
    return tiktoken.Encoding(
        name="qwen",
        pat_str=WORDS,
        mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
        special_tokens={name: len(tokens) + index for index, name in enumerate(names)},
    )


def encode(qwen: tiktoken.Encoding, text: str) -> list[int]:
    """As Qwen-1's tokenizer does."""
    return qwen.encode(unicodedata.normalize("NFC", text), allowed_special="all", disallowed_special=())


def rendered(chat: dict) -> str:
    messages = [tuple(message) for message in chat["messages"]]
    if messages[0][0] != "system":
        messages.insert(0, ("system", "You are a helpful assistant."))
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return text + ("<|im_start|>assistant\n" if chat["add_generation_prompt"] else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    model = parser.parse_args().models / "qwen2.5-coder-0.5b-instruct"
    chats = json.loads((DATA / "conversations.json").read_text(encoding="utf-8"))
    small, large = train(), qwen_tokens(model)
    (DATA / "qwen1").mkdir(exist_ok=True)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(small)]
    (DATA / "qwen1/qwen.tiktoken").write_text("".join(lines), encoding="ascii")

    hf = transformers.AutoTokenizer.from_pretrained(model)
    expected = {}
    for name, tokens in (("small", small), ("large", large)):
        qwen = encoding(tokens)
        texts = [rendered(chat) for chat in chats]
        ids = [encode(qwen, text) for text in texts]
        expected[name] = [{"tokens": len(row), "ids": digest(",".join(map(str, row)))} for row in ids]
        if name == "large":
            # The other added tokens of Qwen2.5 and where it looks for special tokens are the differences there may be.
            same = sum(hf(text, add_special_tokens=False)["input_ids"] == row for text, row in zip(texts, ids))
            print(f"equal to the tokenizer of {model.name}: {same} of {len(texts)}")
        print(f"{name}: vocabulary={len(tokens)} tokens={sum(map(len, ids))}")
    qwen = encoding(small)
    words = [WHOLE_WORD, f" {WHOLE_WORD}", f"{WHOLE_WORD}y", "I'LL we'Ve '\u017f"]
    words += ["<|extra_204|><|extra_205|>", "<|im_end|>\u0338", "\u1e9b\u0323"]
    expected["words"] = [{"text": text, "ids": encode(qwen, text)} for text in words]
    body = ",\n".join(f'"{name}": {one_per_line(items)}' for name, items in expected.items())
    (DATA / "qwen_expected.json").write_text(f'{{"tiktoken": "{tiktoken.__version__}",\n{body}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
