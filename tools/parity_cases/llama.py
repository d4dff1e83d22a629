"""Llama, Mistral, Qwen2, Qwen3, SmolLM3: models/llama."""

import sys

import torch
from peft import PeftModel

from parity_cases.common import LLAMA_ALL, case, off_biases, off_config, off_head, off_positions, off_scale, rope


def off_qk_norm():
    def patch(model):
        for m in model.modules():
            if hasattr(m, "q_norm"):
                m.q_norm.forward = lambda x: x
                m.k_norm.forward = lambda x: x

    return dict(patch=patch)


def off_grouping(how):
    """Query head h reads key head h // n_rep; a wrong mapping (or one head only) must show."""

    def patch(model):
        mod = sys.modules[type(model.get_base_model() if isinstance(model, PeftModel) else model).__module__]

        def wrong(x, n_rep):
            if n_rep == 1:
                return x
            if how == "interleaved":
                return x.repeat(1, n_rep, 1, 1)
            rest = torch.zeros_like(x).repeat(1, n_rep - 1, 1, 1)
            return torch.cat([x, rest], 1)

        right = mod.repeat_kv
        mod.repeat_kv = wrong

        def undo():
            mod.repeat_kv = right

        return undo

    return dict(patch=patch)


def off_nope():
    def patch(model):
        for m in model.modules():
            if hasattr(m, "use_rope"):
                m.use_rope = 1

    return dict(patch=patch)


def off_attention_factor():
    def patch(model):
        for m in model.modules():
            if hasattr(m, "attention_scaling"):
                m.attention_scaling = 1.0

    return dict(patch=patch)


def off_layers(*layers):
    """The window taken away from some layers."""

    def patch(model):
        for m in model.modules():
            if hasattr(m, "layer_type") and m.layer_idx in layers:
                m.sliding_window = None

    return dict(patch=patch)


def off_type(stored, other):
    """The 16 bits of a number read as the other 16-bit type."""

    def patch(model):
        for p in model.parameters():
            if not p.requires_grad:
                bits = p.data.to(stored).view(other).float()
                p.data = bits.nan_to_num(0, 4, -4).clamp(-4, 4)

    return dict(patch=patch)


def head_only(state):
    state["lm_head.weight"] = state.pop("model.embed_tokens.weight")
    return state


CASES = [
    case("mha", "llama", "as many key heads as heads; RoPE", off_positions(), num_key_value_heads=4, rope_parameters=rope()),
    case("gqa", "llama", "two heads per key head", off_grouping("interleaved"), dialect=4, rope_parameters=rope(theta=500.0)),
    case("mqa", "llama", "one key head", off_grouping("first"), num_key_value_heads=1, rope_parameters=rope()),
    case("rope_theta", "llama", "rope_theta 100, not 10000", off_config(rope_parameters=rope()), dialect=4,
         rope_parameters=rope(theta=100.0), logits_only=True),
    case("rms_eps", "llama", "rms_norm_eps", off_config(rms_norm_eps=1e-6), rms_norm_eps=0.5, rope_parameters=rope(),
         logits_only=True),
    case("bias_everywhere", "llama", "attention_bias and mlp_bias", off_biases(r"o_proj|mlp"), lora=dict(bias="all"),
         attention_bias=True, mlp_bias=True, rope_parameters=rope()),
    case("tied", "llama", "one matrix for embedding and head", off_head("rolled"), tie_word_embeddings=True,
         rope_parameters=rope()),
    case("tied_head_stored", "llama", "tied, only lm_head.weight is stored", off_head("rolled"), tie_word_embeddings=True,
         store=head_only, rope_parameters=rope(), logits_only=True),
    case("untied", "llama", "two matrices", off_head("tied"), lora=dict(target_modules=LLAMA_ALL + ["lm_head"]), rope_parameters=rope()),
    case("head_dim", "llama", "explicit head_dim", off_scale(), head_dim=16, rope_parameters=rope()),
    case("bf16", "llama", "weights stored as bfloat16", off_type(torch.bfloat16, torch.float16), dtype="bfloat16", rope_parameters=rope()),
    case("f16", "llama", "weights stored as float16, dialect of transformers 4", off_type(torch.float16, torch.bfloat16), dtype="float16", dialect=4,
         rope_parameters=rope(), logits_only=True),
    case("window", "mistral", "sliding window smaller than the samples", off_config(sliding_window=None), sliding_window=6,
         head_dim=8, rope_parameters=rope()),
    case("qwen2", "qwen2", "bias on q, k and v", off_biases(r"[qkv]_proj"), tie_word_embeddings=True,
         rope_parameters=rope(theta=1000000.0)),
    case("qwen2_window", "qwen2", "window from max_window_layers on", off_config(max_window_layers=3, layer_types=["full_attention"] * 3),
         use_sliding_window=True, sliding_window=5, max_window_layers=1, num_hidden_layers=3, rope_parameters=rope(), logits_only=True),
    case("qwen3", "qwen3", "norm of q and k per head", off_qk_norm(), head_dim=16, rope_parameters=rope(theta=1000000.0)),
    case("qwen3_layer_types", "qwen3", "window by layer_types", off_config(layer_types=["full_attention", "full_attention"]),
         use_sliding_window=True, sliding_window=5, max_window_layers=2, layer_types=["sliding_attention", "full_attention"],
         head_dim=8, attention_bias=True, rope_parameters=rope(), logits_only=True),
    case("smollm3", "smollm3", "a layer without positions", off_nope(), tie_word_embeddings=True, num_hidden_layers=3,
         no_rope_layer_interval=2, no_rope_layers=[1, 0, 1], rope_parameters=rope(theta=5000.0)),
    case("rope_linear", "llama", "RoPE type linear", off_config(rope_parameters=rope()), dialect=4,
         rope_parameters=rope("linear", factor=4.0)),
    case("rope_dynamic", "llama", "RoPE type dynamic, samples longer than the original context",
         off_config(rope_parameters=rope()), rope_parameters=rope("dynamic", theta=100.0, factor=4.0), max_position_embeddings=12,
         lengths=(8, 30), alone=True),
    case("rope_llama3", "llama", "RoPE type llama3", off_config(rope_parameters=rope(theta=100.0)), head_dim=16,
         rope_parameters=rope("llama3", theta=100.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                              original_max_position_embeddings=32)),
    case("rope_yarn", "qwen2", "RoPE type yarn", off_config(rope_parameters=rope(theta=100.0)), dialect=4, head_dim=16,
         rope_parameters=rope("yarn", theta=100.0, factor=4.0, original_max_position_embeddings=16)),
    case("rope_yarn_mscale", "llama", "attention factor of yarn from mscale and mscale_all_dim", off_attention_factor(), head_dim=16,
         rope_parameters=rope("yarn", theta=100.0, factor=4.0, original_max_position_embeddings=16, mscale=1.5,
                              mscale_all_dim=0.5, beta_fast=16.0, beta_slow=2.0, truncate=False), logits_only=True),
    case("embedding_lora", "llama", "LoRA on embedding and head", off_positions(),
         lora=dict(target_modules=["embed_tokens", "lm_head", "q_proj", "down_proj"]), tie_word_embeddings=True,
         rope_parameters=rope()),
    case("modules_to_save", "llama", "embedding, head and norms trained whole", off_positions(),
         lora=dict(modules_to_save=["embed_tokens", "lm_head", "input_layernorm", "norm"], target_modules=["q_proj", "v_proj"]),
         rope_parameters=rope()),
    case("full_tied", "qwen3", "every weight trained, tied", off_qk_norm(), full=True, tie_word_embeddings=True, head_dim=16,
         rope_parameters=rope()),
    case("full_untied", "qwen2", "every weight trained, untied, biases", off_biases(r"[qkv]_proj"), full=True,
         rope_parameters=rope()),
]
