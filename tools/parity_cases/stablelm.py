"""StableLM: models/stablelm."""

from parity_cases.common import LLAMA_ALL, VOCAB, case, off_biases, off_config, off_forward, off_head, off_positions
from parity_cases.llama import off_grouping

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
)


def rope(partial, **kw):
    return dict(rope_parameters=dict(dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=partial), **kw))


def stablelm(name, what, off, **kw):
    return case(name, "stablelm", what, off, base=BASE, **kw)


def off_head_norms():
    """The first head's norm for all of them."""

    def patch(model):
        for m in model.modules():
            if hasattr(m, "norms"):
                for i in range(len(m.norms)):
                    m.norms[i] = m.norms[0]

    return dict(patch=patch)


CASES = [
    stablelm("stablelm", "a quarter of the columns turn", off_config(**rope(1.0)), **rope(0.25)),
    stablelm("stablelm_2", "biases of q, k and v, grouped heads", off_biases(r"[qkv]_proj"), use_qkv_bias=True, num_key_value_heads=2,
             dialect=4, **rope(0.5)),
    stablelm("stablelm_parallel", "both branches behind one norm", off_forward(r"mlp$", lambda m: lambda x: type(m).forward(m, x * 0)),
             use_parallel_residual=True, **rope(0.25)),
    stablelm("stablelm_12b", "a norm for each head, parallel", off_head_norms(), qk_layernorm=True, use_parallel_residual=True,
             num_key_value_heads=2, **rope(0.25)),
    stablelm("stablelm_heads", "ten heads, each with its norm, one of them trained whole", off_head_norms(), qk_layernorm=True, hidden_size=40,
             num_attention_heads=10, num_key_value_heads=1, lora=dict(modules_to_save=["q_layernorm"]), targets=["q_proj", "v_proj"], **rope(1.0)),
    stablelm("stablelm_full", "every weight trained, tied", off_positions(), full=True, tie_word_embeddings=True, **rope(0.25)),
]
