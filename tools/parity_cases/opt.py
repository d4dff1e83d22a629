"""OPT: models/opt."""

import re

import torch

from parity_cases.common import VOCAB, case, off_biases, off_config, off_forward, off_head

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    ffn_dim=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    dropout=0.0,
    attention_dropout=0.0,
    pad_token_id=None,
    bos_token_id=1,
    eos_token_id=2,
)
ALL = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def opt(name, what, off, targets=ALL, **kw):
    return case(name, "opt", what, off, base=BASE, targets=targets, **kw)


def off_offset():
    """Positions from the first row of their table."""
    return off_forward(r"embed_positions$", lambda m: lambda mask, past, position_ids: torch.nn.functional.embedding(position_ids.clamp(min=0), m.weight))


def without_model(state):
    """As the first files: decoder.* beside lm_head."""
    return {re.sub(r"^model\.", "", n): t for n, t in state.items() if not n.startswith("lm_head")}


CASES = [
    opt("opt", "positions with an offset of two", off_offset()),
    opt("opt_350m", "norms behind the branches, a narrow embedding", off_forward(r"project_out$", lambda m: lambda x: x[..., : m.weight.shape[0]]),
        do_layer_norm_before=False, word_embed_proj_dim=24),
    opt("opt_narrow", "a narrow embedding, norms in front", off_forward(r"project_in$", lambda m: lambda x: torch.nn.functional.pad(x, (0, 8))),
        word_embed_proj_dim=24, targets=["q_proj", "v_proj", "project_in", "project_out"]),
    opt("opt_no_final_norm", "_remove_final_layer_norm", off_config(_remove_final_layer_norm=False), _remove_final_layer_norm=True, logits_only=True),
    opt("opt_plain_norms", "norms without weights, no biases, gelu", off_config(activation_function="relu"), activation_function="gelu",
        layer_norm_elementwise_affine=False, enable_bias=False),
    opt("opt_old_files", "names without model.", off_biases("fc1"), store=without_model, logits_only=True),
    opt("opt_untied", "two matrices", off_head("tied"), tie_word_embeddings=False, lora=dict(modules_to_save=["embed_positions"])),
    opt("opt_full", "every weight trained", off_offset(), full=True, optim=dict(eps=1e-2)),
]
