"""GPT-NeoX, Pythia: models/gpt_neox."""

import torch

from parity_cases.common import VOCAB, case, off_attribute, off_biases, off_config, off_forward, off_head, off_positions

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    bos_token_id=1,
    eos_token_id=2,
)
ALL = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


def rope(partial, **kw):
    return dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=partial, **kw))


def neox(name, what, off, targets=ALL, **kw):
    return case(name, "gpt_neox", what, off, base=BASE, targets=targets, **kw)


def old_config(cfg):
    """As Pythia's files have it."""
    r = cfg.pop("rope_parameters")
    cfg["rotary_pct"] = r["partial_rotary_factor"]
    cfg["rotary_emb_base"] = int(r["rope_theta"])
    del cfg["attention_bias"]


def old_names(state):
    """embed_out, and buffers that nobody reads."""
    state["embed_out.weight"] = state.pop("lm_head.weight")
    for i in range(2):
        p = f"gpt_neox.layers.{i}.attention."
        state[p + "bias"] = torch.ones(1, 1, 64, 64, dtype=torch.uint8).tril()
        state[p + "masked_bias"] = torch.tensor(-1e9)
        state[p + "rotary_emb.inv_freq"] = torch.ones(1)
    return state


def no_mean(m):
    """An RMS norm where a layer norm should be."""
    return lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + m.eps) * m.weight + m.bias


def unsplit(m):
    """q, k, v as thirds of the row, not of a head."""
    def forward(x):
        y = torch.nn.Linear.forward(m, x) if isinstance(m, torch.nn.Linear) else type(m).forward(m, x)
        q, k, v = y.chunk(3, -1)
        h = [t.unflatten(-1, (4, -1)) for t in (q, k, v)]
        return torch.cat(h, -1).flatten(-2)

    return forward


CASES = [
    neox("neox_parallel", "both branches from one stream; a quarter of the columns turn", off_config(use_parallel_residual=False),
         **rope(0.25)),
    neox("neox_sequential", "one branch after the other", off_config(use_parallel_residual=True), use_parallel_residual=False,
         **rope(0.5)),
    neox("neox_fused_heads", "q, k and v of a head stand together", off_forward(r"query_key_value$", unsplit),
         targets=["query_key_value"], **rope(1.0)),
    neox("neox_old_files", "embed_out, rotary_pct, rotary_emb_base, stored buffers", off_config(rope_parameters=rope(1.0)["rope_parameters"]),
         edit=old_config, store=old_names, logits_only=True, rope_parameters=dict(rope_type="default", rope_theta=100.0, partial_rotary_factor=0.5)),
    neox("neox_no_bias", "no attention bias, gelu_new, linear RoPE, tied", off_config(hidden_act="relu"), attention_bias=False, hidden_act="gelu_new",
         tie_word_embeddings=True, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0, partial_rotary_factor=0.5)),
    neox("neox_norm", "layer norm takes the mean away", off_forward(r"norm$", no_mean), lora=dict(bias="all"), optim=dict(eps=1e-4), layer_norm_eps=1e-3, **rope(0.5)),
    neox("neox_full", "every weight trained", off_positions(), full=True, optim=dict(eps=1e-4), **rope(0.5)),
]
