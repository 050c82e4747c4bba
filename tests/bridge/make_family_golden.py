"""Writes data/family_golden.json and data/tokenizers: what transformers makes of the templates in data/templates.

Each family is a template, a tokenizer of its kind (a few hundred invented tokens, trained here) and the configuration that says
how transformers loads it. For each conversation and with and without the generation prompt the expectation is the text and its
ids, or the message that the template raises. A template that prints the date has "<today>" in place of it, and no ids.
"""

import json
import random
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

import jinja2
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from make_conversations import CODE, EMOJI, MARKS, SCRIPTS, SPACES, prose

DATA = Path(__file__).parent / "data"
NUM_MERGES = 250
CHATS = [
    [["user", "Hi"]],
    [["system", "Be brief."], ["user", "Name 3 rivers, please."]],
    [["user", "  naïve cafe\u0301 你好 🙂\n"], ["assistant", "Fine — I'll answer.  "], ["user", "\nWhy?"]],
    [["system", " Two  spaces \n"], ["user", "def f(x):\n\treturn x ** 2  # 1024\n"], ["assistant", "\n\nOK"], ["user", "x"]],
    [["user", ""]],
    [["system", ""], ["user", " "], ["assistant", ""], ["user", "0"]],
    [["user", "2+2?"], ["assistant", "<think>\n2+2=4\n</think>\n\nIt is 4."]],
    [["user", "a"], ["assistant", "<think>b</think>c"], ["user", "<tool_response>d</tool_response>"], ["assistant", "e"]],
    [["user", "one"], ["user", "two"]],
    [["user", "I say <s>, </s>, <bos>, <|im_end|>\n, [INST] , <|end|>  x and <|eot_id|>."]],
    [["system", "Only rules. /no_think"]],
    [["user", "a"], ["assistant", "b"], ["tool", "c"]],
]

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = QWEN_WORDS.replace(r"\p{N}| ", r"\p{N}{1,3}| ")


def corpus() -> list[str]:
    rng = random.Random(7)
    texts = [prose(rng) for _ in range(120)] + SCRIPTS + MARKS + EMOJI + SPACES + CODE * 3
    return texts + [content for chat in CHATS for _, content in chat] * 4


def merges_of(trained: Tokenizer) -> list[list[str]]:
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in json.loads(trained.to_str())["model"]["merges"]]


def special(*texts: str, **flags: bool) -> list[AddedToken]:
    return [AddedToken(text, special=True, normalized=False, **flags) for text in texts]


def sentencepiece(first: list[str], prefix: bool) -> Tokenizer:
    """Merges of characters, unknown ones as bytes; spaces are part of the words that follow."""
    training = Tokenizer(models.BPE())
    training.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if prefix else "never")
    trainer = trainers.BpeTrainer(vocab_size=10**6, min_frequency=4, limit_alphabet=120, show_progress=False)
    training.train_from_iterator(corpus(), trainer)
    merges = merges_of(training)[:NUM_MERGES]
    tokens = first + [f"<0x{byte:02X}>" for byte in range(256)]
    for token in [part for merge in merges for part in merge if len(part) == 1] + ["".join(merge) for merge in merges]:
        if token not in tokens:
            tokens.append(token)
    vocab = {token: index for index, token in enumerate(tokens)}
    pairs = [tuple(merge) for merge in merges]
    tokenizer = Tokenizer(models.BPE(vocab, pairs, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if prefix else []))
    return tokenizer


def old_llama(*extra: AddedToken) -> Tokenizer:
    """As the files of 2023 are: a space before every stretch between special tokens."""
    tokenizer = sentencepiece(["<unk>", "<s>", "</s>"], prefix=True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_tokens([*special("<unk>", "<s>", "</s>"), *extra])
    return tokenizer


def new_mistral() -> Tokenizer:
    tokenizer = sentencepiece(["<unk>", "<s>", "</s>"], prefix=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_tokens(special("<unk>", "<s>", "</s>", "[INST]", "[/INST]"))
    return tokenizer


def gemma() -> Tokenizer:
    tokenizer = sentencepiece(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], prefix=False)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_tokens(special("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"))
    return tokenizer


def byte_level(words, extra: list[AddedToken], normalizer=None, ignore_merges=False) -> Tokenizer:
    training = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(words), "isolated") if isinstance(words, str) else words
    training.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not isinstance(words, str))]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + NUM_MERGES, initial_alphabet=alphabet, show_progress=False)
    training.train_from_iterator(corpus(), trainer)
    pairs = [tuple(merge) for merge in merges_of(training)]
    tokenizer = Tokenizer(models.BPE(training.get_vocab(), pairs, ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = training.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(extra)
    return tokenizer


CHATML = special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
HEADERS = special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
DEEPSEEK = special("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>") + [
    AddedToken(text, special=False, normalized=False) for text in ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
]
TOKENIZERS = {
    "old_llama": old_llama(),
    "old_llama_chatml": old_llama(*special("<|im_start|>", "<|im_end|>")),
    "old_llama_phi": old_llama(*special("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", rstrip=True)),
    "new_mistral": new_mistral(),
    "gemma": gemma(),
    "llama3": byte_level(LLAMA3_WORDS, HEADERS + CHATML, ignore_merges=True),
    "deepseek_llama": byte_level(LLAMA3_WORDS, DEEPSEEK, ignore_merges=True),
    "smollm": byte_level(pre_tokenizers.Digits(individual_digits=True), CHATML),
    "qwen2": byte_level(QWEN_WORDS, CHATML, normalizer=normalizers.NFC()),
    "deepseek_qwen": byte_level(QWEN_WORDS, DEEPSEEK, normalizer=normalizers.NFC()),
}
S = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
R1 = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}
CLASS = "tokenizer_class"
# Family: template, tokenizer, model type, the rest of tokenizer_config.json.
FAMILIES = {
    "llama2": ("llama2", "old_llama", "llama", {**S, CLASS: "LlamaTokenizer", "legacy": False}),
    "llama2_legacy": ("llama2", "old_llama", "llama", {CLASS: "LlamaTokenizerFast", "legacy": True}),
    "yi": ("yi", "old_llama_chatml", "llama", {**S, CLASS: "LlamaTokenizer", "legacy": True, "add_prefix_space": False}),
    "llama3": ("llama3", "llama3", "llama", {**LLAMA3, CLASS: "PreTrainedTokenizerFast"}),
    "llama31": ("llama31", "llama3", "llama", {**LLAMA3, CLASS: "PreTrainedTokenizer"}),
    "llama32": ("llama32", "llama3", "llama", {**LLAMA3, CLASS: "PreTrainedTokenizerFast"}),
    "smollm2": ("smollm2", "smollm", "llama", {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", CLASS: "GPT2Tokenizer"}),
    "smollm3": ("smollm3", "llama3", "smollm3", {"bos_token": None, CLASS: "PreTrainedTokenizerFast"}),
    "r1_llama": ("deepseek_r1", "deepseek_llama", "llama", {**R1, CLASS: "LlamaTokenizerFast", "legacy": True}),
    "r1_qwen": ("deepseek_r1", "deepseek_qwen", "qwen2", {**R1, CLASS: "LlamaTokenizerFast", "legacy": True}),
    "mistral": ("mistral_v1", "old_llama", "mistral", {**S, CLASS: "LlamaTokenizer", "legacy": True}),
    "mistral_v3": ("mistral_v3", "new_mistral", "mistral", {**S, CLASS: "LlamaTokenizerFast", "legacy": False}),
    "mixtral": ("mistral_v1", "old_llama", "mixtral", {**S, CLASS: "LlamaTokenizer", "legacy": True}),
    "gemma": ("gemma", "gemma", "gemma", {**GEMMA, CLASS: "GemmaTokenizer"}),
    "gemma2": ("gemma", "gemma", "gemma2", {**GEMMA, CLASS: "GemmaTokenizerFast"}),
    "gemma3": ("gemma3", "gemma", "gemma3_text", {**GEMMA, CLASS: "GemmaTokenizer"}),
    "phi3": ("phi3", "old_llama_phi", "phi3", {**S, "eos_token": "<|end|>", CLASS: "LlamaTokenizer", "legacy": False}),
    "qwen2": ("qwen25", "qwen2", "qwen2", {**QWEN, CLASS: "Qwen2Tokenizer"}),
    "qwen2_moe": ("smollm2", "qwen2", "qwen2_moe", {**QWEN, CLASS: "Qwen2Tokenizer"}),
    "qwen3": ("qwen3", "qwen2", "qwen3", {**QWEN, CLASS: "Qwen2Tokenizer"}),
    "qwen3_moe": ("qwen3", "qwen2", "qwen3_moe", {**QWEN, CLASS: "Qwen2TokenizerFast"}),
    "command_r": ("command_r", "llama3", "cohere", {**LLAMA3, CLASS: "PreTrainedTokenizerFast"}),
}
TODAY = {"llama32": "%d %b %Y", "smollm3": "%d %B %Y"}


def load(name: str, folder: Path) -> transformers.PreTrainedTokenizerBase:
    template, tokenizer, model_type, config = FAMILIES[name]
    # transformers has the names of such folders in a list, without which it would lose their spaces.
    kind = transformers.PreTrainedTokenizerFast if name == "r1_llama" else transformers.AutoTokenizer
    shutil.copyfile(DATA / f"tokenizers/{tokenizer}.json", folder / "tokenizer.json")
    shutil.copyfile(DATA / f"templates/{template}.jinja", folder / "chat_template.jinja")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    return kind.from_pretrained(folder)


def expectation(name: str, tokenizer: transformers.PreTrainedTokenizerBase, chat: list, add_generation_prompt: bool) -> dict:
    messages = [{"role": role, "content": content} for role, content in chat]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except jinja2.TemplateError as error:
        if type(error) is not jinja2.TemplateError:
            raise
        return {"raises": str(error)}
    if name in TODAY:
        return {"text": text.replace(datetime.now().strftime(TODAY[name]), "<today>")}
    return {"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]}


def main() -> None:
    (DATA / "tokenizers").mkdir(exist_ok=True)
    for name, tokenizer in TOKENIZERS.items():
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (DATA / f"tokenizers/{name}.json").write_text(text + "\n", encoding="utf-8")
    families = []
    for name, (template, tokenizer_name, model_type, config) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = load(name, Path(folder))
        cases = [expectation(name, tokenizer, chat, prompt) for chat in CHATS for prompt in (False, True)]
        head = {"name": name, "template": template, "tokenizer": tokenizer_name, "tokenizer_config": config}
        head |= {"config": {"model_type": model_type}, "today": TODAY.get(name)}
        lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
        families.append(json.dumps(head)[:-1] + f', "cases": [\n{lines}\n]}}')
        ids = sum(len(case.get("ids", [])) for case in cases)
        print(f"{name}: {type(tokenizer).__name__} raises={sum('raises' in case for case in cases)} ids={ids}")
    chats = ",\n".join(json.dumps(chat, ensure_ascii=False) for chat in CHATS)
    body = ",\n".join(families)
    text = f'{{"transformers": "{transformers.__version__}", "chats": [\n{chats}\n], "families": [\n{body}\n]}}\n'
    (DATA / "family_golden.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
