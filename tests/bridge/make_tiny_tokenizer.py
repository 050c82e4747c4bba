"""Writes data/tiny: a byte-level BPE tokenizer of a few dozen tokens, with the traps of real folders.

Padding and truncation are stored in tokenizer.json and must be ignored; the pad token is named only in tokenizer_config.json
and must be added; the eos token is an object, as older folders have it.
"""

import json
from pathlib import Path

LETTERS = "!.,:?'abcdefghijklmnopqrstuvwxyzHIS0123456789ĠĊ"
# UTF-8 bytes of "é" and of U+1F642 as byte-level BPE spells them.
BYTES = "Ã©ðŁĻĤ"
MERGES = ["H e", "l l", "He ll", "Hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ã ©"]
SPECIAL = ["<|start|>", "<|end|>"]


def main() -> None:
    folder = Path(__file__).parent / "data" / "tiny"
    tokens = SPECIAL + list(LETTERS) + list(BYTES) + [merge.replace(" ", "") for merge in MERGES]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 1,
            "pad_type_id": 0,
            "pad_token": "<|end|>",
        },
        "added_tokens": [
            {
                "id": i,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, token in enumerate(SPECIAL)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|start|>": {"id": "<|start|>", "ids": [0], "tokens": ["<|start|>"]}},
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": MERGES,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "bos_token": "<|start|>",
        "eos_token": {"__type": "AddedToken", "content": "<|end|>", "lstrip": False, "normalized": False, "rstrip": False,
                      "single_word": False},
        "pad_token": "<|pad|>",
        "unk_token": None,
    }
    template = (
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'system' and not loop.first %}\n"
        "        {{- raise_exception('the system message must come first') }}\n"
        "    {%- endif %}\n"
        "    {{- bos_token + message.role + '\\n' + message.content + eos_token + '\\n' }}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- bos_token + 'assistant\\n' }}\n"
        "{%- endif %}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    write = lambda name, text: (folder / name).write_text(text, encoding="utf-8")
    write("tokenizer.json", json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n")
    write("tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    write("chat_template.jinja", template)


if __name__ == "__main__":
    main()
