"""Falcon: models/falcon."""

from parity_cases.common import VOCAB, case, off_biases, off_config, off_forward, off_head, off_positions

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    ffn_hidden_size=48,
    bos_token_id=1,
    eos_token_id=2,
)
ALL = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


def falcon(name, what, off, targets=ALL, **kw):
    return case(name, "falcon", what, off, base=BASE, targets=targets, **kw)


# ALiBi: with "eager" transformers 5.23 adds it twice, to the mask and to the scores; "sdpa", its default, adds it once.


def off_alibi():
    """No slopes."""

    def patch(model):
        import transformers.models.falcon.modeling_falcon as mod

        right = mod.build_alibi_tensor
        mod.build_alibi_tensor = lambda mask, n, dtype: right(mask, n, dtype) * 0

        def undo():
            mod.build_alibi_tensor = right

        return undo

    return dict(patch=patch)


def off_groups():
    """Query heads in another order than their key heads."""

    def patch(model):
        for m in model.modules():
            if hasattr(m, "_split_heads"):
                m._split_heads = (lambda right: lambda x: (lambda q, k, v: (q.roll(1, 2), k, v))(*right(x)))(m._split_heads)

    return dict(patch=patch)


def same_norm(model):
    """The MLP behind the norm of attention."""
    for m in model.modules():
        if hasattr(m, "ln_mlp"):
            m.ln_mlp = m.ln_attn


def old_config(cfg):
    cfg["n_layer"], cfg["n_head"] = cfg.pop("num_hidden_layers"), cfg.pop("num_attention_heads")
    for k in ("rope_parameters", "ffn_hidden_size", "num_ln_in_parallel_attn", "activation", "max_position_embeddings"):
        cfg.pop(k, None)


CASES = [
    falcon("falcon_7b", "many query heads, one key head, both branches behind one norm", off_positions()),
    falcon("falcon_40b", "groups of heads, a norm for each branch", dict(patch=same_norm), new_decoder_architecture=True, num_kv_heads=2,
           tie_word_embeddings=False),
    falcon("falcon_groups", "query heads read the key head behind them", off_groups(), new_decoder_architecture=True, num_kv_heads=2,
           targets=["query_key_value"]),
    falcon("falcon_11b", "groups of heads, one norm", off_groups(), new_decoder_architecture=True, num_kv_heads=2,
           num_ln_in_parallel_attn=1, logits_only=True),
    falcon("falcon_rw", "ALiBi, biases, one branch after the other", off_alibi(), attention="sdpa", lengths=(10, 40), alibi=True, multi_query=False, parallel_attn=False, bias=True),
    falcon("falcon_mha", "as many key heads as heads, parallel", off_head("rolled"), multi_query=False, logits_only=True, bias=True),
    falcon("falcon_alibi_mqa", "ALiBi with one key head", off_alibi(), attention="sdpa", alibi=True),
    falcon("falcon_full", "every weight trained", off_positions(), full=True, optim=dict(eps=1e-4), new_decoder_architecture=True, num_kv_heads=1),
]
