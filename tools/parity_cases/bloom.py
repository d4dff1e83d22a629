"""BLOOM: models/bloom."""

import re

from parity_cases.common import VOCAB, case, off_config, off_forward, off_head

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    n_layer=2,
    n_head=4,
    bos_token_id=1,
    eos_token_id=2,
)
ALL = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


def bloom(name, what, off, targets=ALL, **kw):
    return case(name, "bloom", what, off, base=BASE, targets=targets, **kw)


def off_alibi():
    """The same slope for every head."""

    def patch(model):
        import transformers.models.bloom.modeling_bloom as mod

        right = mod._get_alibi_slopes
        mod._get_alibi_slopes = lambda n, device: right(n, device) * 0 + 0.25

        def undo():
            mod._get_alibi_slopes = right

        return undo

    return dict(patch=patch)


def off_residual():
    def patch(model):
        for m in model.modules():
            if hasattr(m, "apply_residual_connection_post_layernorm"):
                m.apply_residual_connection_post_layernorm = False

    return dict(patch=patch)


def bare(state):
    return {re.sub(r"^transformer\.", "", n): t for n, t in state.items()}


def old_config(cfg):
    cfg["n_embed"] = cfg.pop("hidden_size")
    cfg["num_attention_heads"] = cfg.pop("n_head")
    cfg["seq_length"] = 64


CASES = [
    bloom("bloom", "ALiBi: a slope per head", off_alibi()),
    bloom("bloom_heads", "heads that are no power of two", off_alibi(), hidden_size=36, n_head=6, targets=["query_key_value"]),
    bloom("bloom_embedding_norm", "a norm behind the embedding", off_forward(r"word_embeddings_layernorm$", lambda m: lambda x: x),
          store=bare, edit=old_config, logits_only=True),
    bloom("bloom_residual", "the stream goes on from the norms", off_residual(), apply_residual_connection_post_layernorm=True),
    bloom("bloom_untied", "two matrices", off_head("tied"), tie_word_embeddings=False, targets=ALL + ["lm_head"]),
    bloom("bloom_full", "every weight trained", off_alibi(), full=True, hidden_size=16, optim=dict(eps=1e-4)),
]
