"""Geometry of the last-token residuals of two sets, layer by layer, from the rows themselves (numpy, float64)."""

import numpy as np
import torch

import plain_model


@torch.inference_mode()
def last_inputs(runner, rows):
    """The input of every block at the last token of each row: [N, L, d] float64."""
    blocks, found = plain_model.blocks_of(runner.model), []

    def keep(layer):
        def hook(_, args):  # Returns nothing: what a hook returns would replace the input.
            found[-1][layer] = args[0][:, -1].double().numpy()
        return hook

    with plain_model.hooked([b.register_forward_pre_hook(keep(i)) for i, b in enumerate(blocks)]):
        for batch in plain_model.batches(rows, runner.batch_size):
            found.append([None] * len(blocks))
            runner.forward(batch)
    return np.concatenate([np.stack(layers, 1) for layers in found])


def of_layer(positive, negative):
    """positive [n, d], negative [m, d]."""
    rows = np.concatenate([positive, negative])
    difference = positive.mean(0) - negative.mean(0)
    norm = np.linalg.norm(difference)
    _, s, v = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    share = s ** 2 / max((s ** 2).sum(), 1e-300)
    along = rows @ (difference / norm) if norm > 0 else np.zeros(len(rows))
    a, b = along[:len(positive), None], along[None, len(positive):]
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    own = np.concatenate([np.zeros(len(positive)), np.ones(len(negative))])
    scores = []
    for i, row in enumerate(distances):
        same = row[own == own[i]].sum() / ((own == own[i]).sum() - 1)
        other = row[own != own[i]].mean()
        scores.append((other - same) / max(same, other) if max(same, other) > 0 else 0)
    norms = np.linalg.norm(rows, axis=1)
    return {"positive_norm": norms[:len(positive)].mean(), "negative_norm": norms[len(positive):].mean(),
            "positive_norm_spread": norms[:len(positive)].std(), "negative_norm_spread": norms[len(positive):].std(),
            "difference_norm": norm, "pc1_share": share[0], "pc2_share": share[1],
            "pc1_cosine": abs(v[0] @ difference) / norm if norm > 0 else 0,
            "auroc": ((a > b) + 0.5 * (a == b)).mean(), "silhouette": np.mean(scores), "projections": along}
