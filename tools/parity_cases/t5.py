"""T5, T5 v1.1 (FLAN), mT5: models/t5. Encoder and decoder; samples have a source, and their ids begin with the decoder's start."""

import re

from peft import PeftModel

from parity_cases.common import VOCAB, case, off_attribute

BASE = dict(
    vocab_size=VOCAB,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=2,
    num_heads=4,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
    dropout_rate=0.0,
    pad_token_id=0,
    eos_token_id=1,
    decoder_start_token_id=0,
)
ALL = ["q", "k", "v", "o", "wi", "wo"]
GATED = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]


def scale(name, p, r):
    if re.search("shared|embed", name):
        return 1.2 * r
    if name == "lm_head.weight":
        return 1.2 * r / p.shape[1] ** 0.5
    if "relative_attention_bias" in name:
        return 1.5 * r
    if re.search(r"\.[qk]\.weight", name):  # scores are not scaled
        return 0.6 * r / p.shape[1] ** 0.5
    return 1.2 * r / p.shape[1] ** 0.5


def t5(name, what, off, arch="t5", targets=None, **kw):
    gated = kw.get("feed_forward_proj", "relu").startswith("gated") or arch == "mt5"
    return case(name, arch, what, off, base=BASE, targets=targets or (GATED if gated else ALL), scale=scale, seq2seq=True,
                edit=kw.pop("edit", None), **kw)


def stacks(model):
    m = model.get_base_model() if isinstance(model, PeftModel) else model
    return [m.encoder, m.decoder]


def off_bias(which):
    """No biases by distance in this stack."""

    def patch(model):
        stacks(model)[which].block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.zero_()

    return dict(patch=patch)


def off_buckets():
    """Distances of one direction are all alike: the decoder's way to count them, in the encoder."""

    def patch(model):
        for b in stacks(model)[0].block:
            a = b.layer[0].SelfAttention
            right = type(a)._relative_position_bucket
            a._relative_position_bucket = lambda r, bidirectional=True, right=right, **kw: right(r, bidirectional=False, **kw)

    return dict(patch=patch)


def off_cross():
    """The decoder does not look at the encoder."""

    def patch(model):
        for b in stacks(model)[1].block:
            o = b.layer[1].EncDecAttention.o
            getattr(o, "base_layer", o).weight.data.zero_()

    return dict(patch=patch)


def off_causal_encoder():
    """Rows of the encoder see no rows after them."""

    def patch(model):
        from transformers.masking_utils import create_causal_mask
        import transformers.models.t5.modeling_t5 as t5

        right = t5.create_bidirectional_mask

        def wrong(**kw):
            if kw.get("encoder_hidden_states") is not None:
                return right(**kw)
            kw.pop("encoder_hidden_states", None)
            return create_causal_mask(**kw, past_key_values=None)

        t5.create_bidirectional_mask = wrong
        return lambda: setattr(t5, "create_bidirectional_mask", right)

    return dict(patch=patch)


def off_head_scale(value):
    def patch(model):
        m = model.get_base_model() if isinstance(model, PeftModel) else model
        m.config.scale_decoder_outputs = value

    return dict(patch=patch)


def off_gate():
    """The gate is not applied: as if the MLP were plain."""

    def patch(model):
        for s in stacks(model):
            for b in s.block:
                m = b.layer[-1].DenseReluDense
                m.forward = lambda x, m=m: m.wo(m.act(m.wi_0(x)))

    return dict(patch=patch)


def off_act(value):
    return off_attribute(act=value)


def old_keys(state):
    """The table under the names of both stacks, too, as older files have it."""
    return {**state, "encoder.embed_tokens.weight": state["shared.weight"].clone(), "decoder.embed_tokens.weight": state["shared.weight"].clone()}


def without_shared(state):
    out = {k: v for k, v in state.items() if k != "shared.weight"}
    return {**out, "encoder.embed_tokens.weight": state["shared.weight"]}


V11 = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)

def old_flan(cfg):
    """As the files of FLAN-T5 say it: two matrices, and therefore nothing is scaled."""
    del cfg["scale_decoder_outputs"]
    cfg["tie_word_embeddings"] = False


CASES = [
    t5("t5_small", "T5 1.0: relu, tied head that is scaled; the encoder's biases", off_bias(0)),
    t5("t5_decoder_bias", "the decoder's biases; unequal stacks", off_bias(1), num_decoder_layers=3),
    t5("t5_both_ways", "the encoder sees rows after its own", off_causal_encoder()),
    t5("t5_cross", "cross attention; LoRA on its keys and values alone", off_cross(), targets=r".*EncDecAttention\.[kv]"),
    t5("t5_buckets", "the encoder counts distances in both directions", off_buckets(), relative_attention_num_buckets=32,
       relative_attention_max_distance=20, lengths=(14, 24)),
    t5("t5_head_scale", "logits times d_model^-0.5; the table stored three times", off_head_scale(False), store=old_keys),
    t5("flan_gated", "v1.1: gated gelu, a head of its own", off_gate(), untied=True, optim=dict(eps=1e-4), **V11),
    t5("flan_head", "v1.1: the head is not scaled", off_head_scale(True), untied=True, edit=old_flan, lora=dict(modules_to_save=["lm_head"]), **V11),
    t5("t5_full_tied", "every weight is trained, the tables of biases too; gated silu", off_bias(0), full=True, feed_forward_proj="gated-silu", optim=dict(eps=1e-5)),
    t5("t5_full_untied", "every weight is trained, head and table are two; files without shared.weight", off_cross(), full=True, untied=True, optim=dict(eps=1e-5),
       store=without_shared, **V11),
    t5("mt5", "mT5: gated gelu, unscaled head", off_gate(), arch="mt5", untied=True),
]
