"""Plain transformers in this process: the other side of the measurements of forward passes and of generation."""

import torch

import plain_model
import refusal_direction
from measure import timed


class Plain:
    def __init__(self, folder, dtype, threads):
        torch.set_num_threads(threads)
        self.model = plain_model.load_model(folder, dtype)
        self.pad_id = plain_model.load_tokenizer(folder).pad_token_id
        self.eos = self.model.generation_config.eos_token_id

    def forward(self, rows, size, last):
        """Last-position logits; `last`: transformers is asked for no others."""
        runner = refusal_direction.Runner(self.model, self.pad_id, size, last)

        @torch.inference_mode()
        def work():
            return [i for batch in plain_model.batches(rows, size) for i in runner.forward(batch)[:, -1].argmax(-1).tolist()]
        return timed(work)

    def generate(self, rows, size, new_tokens, ends):
        """Greedy completions without their end token; without `ends` every row runs to `new_tokens`."""
        self.model.generation_config.eos_token_id = self.eos if ends else None
        stops = set(self.eos if isinstance(self.eos, list) else [self.eos]) if ends else set()

        @torch.inference_mode()
        def work():
            found = []
            for batch in plain_model.batches(rows, size):
                ids, mask = plain_model.left_padded(batch, self.pad_id)
                out = self.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False,
                                          pad_token_id=self.pad_id)[:, ids.shape[1]:].tolist()
                found += [row[:next((i for i, t in enumerate(row) if t in stops), len(row))] for row in out]
            return found
        return timed(work)


def best_size(sizes, run):
    """The batch size at which run(size) is fastest, and all times."""
    times = {size: run(size)["seconds"] for size in sizes}
    return min(times, key=times.get), times


# ---- arithmetic ----------------------------------------------------------------------------------------------------------------


def product_flops(config, tokens, read):
    """FLOP of the products of a dense model over `tokens`, of which `read` go through the end of the last block and get logits."""
    d, heads, kv = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    e = getattr(config, "head_dim", None) or d // heads
    qkv, rest = d * (heads + 2 * kv) * e, heads * e * d + 3 * d * config.intermediate_size
    layers = config.num_hidden_layers
    return 2 * (layers * tokens * qkv + ((layers - 1) * tokens + read) * rest + read * d * config.vocab_size)


@torch.inference_mode()
def gemm_peak(config, dtype, threads, clock="seconds", tokens=1024, repeats=9):
    """FLOP/s of the fastest of the model's products in plain torch: what this machine gives at these shapes. In processor time:
    of one thread."""
    torch.set_num_threads(threads)
    d, ffn = config.hidden_size, config.intermediate_size
    types = [torch.float32] + ([torch.bfloat16] if dtype == "bfloat16" else [])
    best = 0.0
    for kind in types:
        for inner, outer in ((d, 2 * ffn), (ffn, d)):
            x, w = torch.randn(tokens, inner).to(kind), torch.randn(outer, inner).to(kind)
            seconds = min(timed(lambda: torch.nn.functional.linear(x, w))[clock] for _ in range(repeats))
            best = max(best, 2 * tokens * inner * outer / seconds)
    return best
