"""A transformers causal language model with its prompts, and the interventions of Arditi et al. 2024 as plain hooks."""

import contextlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import qwen1

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SENTINEL = "bearing-sentinel-5f2c"


def load_model(folder, dtype="float32"):
    config = json.loads((Path(folder) / "config.json").read_text())
    if config["model_type"] == "qwen":
        return qwen1.load(folder, DTYPES[dtype])
    options = {}
    if config.get("attn_logit_softcapping"):
        # torch's fused attention has no cap on the scores, and transformers does not say so.
        options["attn_implementation"] = "eager"
    if config["model_type"] == "gemma" and "hidden_activation" not in config:
        # The first Gemma files say "gelu" and mean the tanh approximation (transformers pull request 29402).
        options["hidden_act"] = "gelu_pytorch_tanh"
    if "num_experts" in config or "num_local_experts" in config:
        # One expert after the other: the grouped product wants rows of a multiple of 16 bytes.
        options["experts_implementation"] = "eager"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], **options).eval()


def load_tokenizer(folder):
    # Not AutoTokenizer for Qwen-1, whose config.json names code to run.
    qwen1_config = json.loads((Path(folder) / "config.json").read_text())["model_type"] == "qwen"
    tokenizer = (PreTrainedTokenizerFast if qwen1_config else AutoTokenizer).from_pretrained(folder)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_instructions(path, count=0):
    """The instructions of a prompts file: JSON list of strings or of {"instruction": ...}, or text with one a line."""
    text = Path(path).read_text(encoding="utf-8")
    if str(path).endswith(".json"):
        found = [item if isinstance(item, str) else item["instruction"] for item in json.loads(text)]
    else:
        found = [line for line in text.splitlines() if line.strip()]
    if count and len(found) < count:
        raise SystemExit(f"{path}: {len(found)} prompts, expected at least {count}")
    return found[:count] if count else found


def render(tokenizer, instruction, system=None):
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": instruction})
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def token_ids(tokenizer, instructions, system=None):
    return [tokenizer(render(tokenizer, i, system), add_special_tokens=False)["input_ids"] for i in instructions]


def num_positions(tokenizer, system=None):
    """Tokens of the chat template after the instruction."""
    after = render(tokenizer, SENTINEL, system).split(SENTINEL)[1]
    return len(tokenizer(after, add_special_tokens=False)["input_ids"])


def left_padded(rows, pad_id):
    """Token lists as one batch: (ids, attention mask)."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (longest - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
    return ids, mask


def batches(rows, size):
    return [rows[i:i + size] for i in range(0, len(rows), size)]


def decoder_of(model):
    """What holds `layers` and `norm`: in a model with a vision part, its language model."""
    return getattr(model.model, "language_model", model.model)


def blocks_of(model):
    return decoder_of(model).layers


def writers_of(block):
    """The two modules of a block whose outputs are added to the residual stream.

    Where a norm stands between the attention or MLP and the addition (Gemma 2 and 3), it is that norm that writes. The name
    post_attention_layernorm alone does not tell: in all other families it is the norm before the MLP.
    """
    if hasattr(block, "post_feedforward_layernorm"):
        return block.post_attention_layernorm, block.post_feedforward_layernorm
    return block.self_attn, block.mlp


def load_direction(path):
    """(direction, mean difference or None) of a direction file, as stored."""
    tensors = load_file(path)
    return tensors["direction"], tensors.get("mean_difference")


def addition_vector(path):
    """What adding a direction file means: the raw mean difference, or the unit direction when the file has nothing else."""
    direction, mean_difference = load_direction(path)
    return direction if mean_difference is None else mean_difference


class Ablation:
    """x - (x.r)r. The direction is normalised at every call in the dtype it has by then, as the paper's code does."""

    def __init__(self, direction):
        self.direction = direction

    def __call__(self, x):
        self.direction = (self.direction / (self.direction.norm() + 1e-8)).to(x.dtype)
        return x - (x @ self.direction).unsqueeze(-1) * self.direction


@contextlib.contextmanager
def hooked(handles):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def change_input(module, change):
    """The residual is a block's first positional argument."""
    return module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))


def change_output(module, change):
    def hook(_, __, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)
    return module.register_forward_hook(hook)


def ablated(model, direction):
    """Removes the direction from the input of every block and from everything a block adds to it, at all positions."""
    handles = []
    for block in blocks_of(model):
        handles.append(change_input(block, Ablation(direction)))
        for writer in writers_of(block):
            handles.append(change_output(writer, Ablation(direction)))
    return hooked(handles)


def removed_by_strength(model, direction, strength_of):
    """Every write c loses strength * (c.r)r: strength_of("embedding", 0), or of "attention" and "mlp" of a layer."""
    unit = direction / direction.norm()

    def take_out(strength):
        return lambda x: x - strength * (x @ unit.to(x.dtype)).unsqueeze(-1) * unit.to(x.dtype)

    handles = [change_output(decoder_of(model).embed_tokens, take_out(strength_of("embedding", 0)))]
    for layer, block in enumerate(blocks_of(model)):
        for component, writer in zip(("attention", "mlp"), writers_of(block)):
            handles.append(change_output(writer, take_out(strength_of(component, layer))))
    return hooked(handles)


def added(model, vector, layer, factor=1.0):
    """Adds factor * vector to the input of one block, at all positions."""
    return hooked([change_input(blocks_of(model)[layer], lambda x: x + (factor * vector).to(x.dtype))])


def steered(model, ablate=None, add=None, layer=None, factor=1.0):
    """The intervention that the command lines here share: direction files or None."""
    stack = contextlib.ExitStack()
    if ablate:
        stack.enter_context(ablated(model, load_direction(ablate)[0]))
    if add:
        stack.enter_context(added(model, addition_vector(add), layer, factor))
    return stack


def add_steering_arguments(parser):
    parser.add_argument("--ablate", metavar="DIRECTION.safetensors")
    parser.add_argument("--add", metavar="DIRECTION.safetensors")
    parser.add_argument("--layer", type=int, help="block whose input --add changes")


def check_steering_arguments(parser, arguments):
    if (arguments.add is None) != (arguments.layer is None):
        parser.error("--add and --layer go together")
