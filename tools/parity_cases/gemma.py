"""Gemma 1, 2 and 3: models/gemma."""

from functools import partial

import torch

from parity_cases import common
from parity_cases.common import BASE, off_attribute, off_config, off_forward, rope

GEMMA = dict(BASE, head_dim=16, tie_word_embeddings=True, rms_norm_eps=1e-6)
GEMMA2 = dict(GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=5.0, sliding_window=6, query_pre_attn_scalar=24,
              num_hidden_layers=3)
GEMMA3 = dict(GEMMA, sliding_window=6, query_pre_attn_scalar=24, num_hidden_layers=3,
              layer_types=["sliding_attention", "sliding_attention", "full_attention"])
THETAS = dict(full_attention=rope(theta=500.0), sliding_attention=rope(theta=20.0))


def small_embeddings(name, p, r):
    """They are multiplied by sqrt(hidden), and the branches are to be heard beside them."""
    if "vision" in name or "multi_modal" in name:
        return r
    return (0.3 if "embed" in name else 1) * common.scale(name, p, r)


def around_zero(state):
    """1 + w is what a norm multiplies by."""
    return {n: p - 1 if n.endswith("norm.weight") else p for n, p in state.items()}


case = partial(common.case, scale=small_embeddings, store=around_zero)


def off_one_plus():
    """Norms that multiply by w, as everywhere else."""
    return off_forward("norm$", lambda m: lambda x: m._norm(x.float()) * m.weight)


def off_identity(pattern):
    return off_forward(pattern, lambda m: lambda x: x)


def off_embed_scale():
    return off_attribute(embed_scale=torch.tensor(1.0))


def off_gelu():
    return off_forward(r"mlp\.act_fn$", lambda m: lambda x: x)


def off_windows():
    def patch(model):
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        config = base.config
        right = config.sliding_window
        config.sliding_window = 4096

        def undo():
            config.sliding_window = right

        return undo

    return dict(patch=patch)


def dialect_4(cfg):
    """As transformers 4 wrote Gemma 3: one number for the pattern, thetas beside it."""
    r = cfg.pop("rope_parameters")
    full, local = r["full_attention"], r["sliding_attention"]
    cfg["rope_theta"], cfg["rope_local_base_freq"] = full.pop("rope_theta"), local.pop("rope_theta")
    cfg["rope_scaling"] = full if full["rope_type"] != "default" else None
    cfg.pop("layer_types")
    cfg["sliding_window_pattern"] = 3
    cfg["torch_dtype"] = cfg.pop("dtype")


VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)


def blind(model):
    """The language model alone."""
    model.model.vision_tower = None
    model.model.multi_modal_projector = None


def old_names(state):
    """As transformers 4 named them."""
    return {n.replace("model.language_model.", "language_model.model.", 1) if "language_model" in n else n.replace("model.", "", 1): p
            for n, p in around_zero(state).items() if not n.startswith("lm_head")}


CASES = [
    case("gemma", "gemma", "norms multiply by 1 + w", off_one_plus(), base=GEMMA, rope_parameters=rope()),
    case("gemma_embed_scale", "gemma", "embeddings times sqrt(hidden), one key head", off_embed_scale(), base=GEMMA,
         num_key_value_heads=1, rope_parameters=rope(), lora=dict(target_modules=["embed_tokens", "v_proj"])),
    case("gemma_gelu", "gemma", "gelu_pytorch_tanh, in a config that says gelu", off_gelu(), base=GEMMA, dialect=4,
         rope_parameters=rope(), logits_only=True, edit=lambda cfg: cfg.update(hidden_act="gelu")),
    case("gemma_full", "gemma", "every weight trained, biases", off_one_plus(), full=True, base=GEMMA, attention_bias=True,
         tie_word_embeddings=False, rope_parameters=rope()),
    case("gemma2", "gemma2", "scores are capped", off_config(attn_logit_softcapping=None), base=GEMMA2, rope_parameters=rope()),
    case("gemma2_final_cap", "gemma2", "logits are capped; LoRA on the head", off_config(final_logit_softcapping=None), base=GEMMA2,
         rope_parameters=rope(), lora=dict(target_modules=["lm_head", "q_proj"]), tie_word_embeddings=False),
    case("gemma2_post_norms", "gemma2", "norms behind the branches", off_identity("post_(attention|feedforward)_layernorm$"),
         base=GEMMA2, rope_parameters=rope(), logits_only=True),
    case("gemma2_windows", "gemma2", "a window in every second layer; no caps", off_windows(), base=GEMMA2, rope_parameters=rope(),
         attn_logit_softcapping=None, final_logit_softcapping=None),
    case("gemma2_scalar", "gemma2", "query_pre_attn_scalar", off_config(query_pre_attn_scalar=16), base=GEMMA2, rope_parameters=rope(),
         logits_only=True),
    case("gemma2_full", "gemma2", "every weight trained", off_config(final_logit_softcapping=None), full=True, base=GEMMA2,
         rope_parameters=rope()),
    case("gemma3", "gemma3_text", "norm of q and k per head", off_identity("[qk]_norm$"), base=GEMMA3, rope_parameters=THETAS),
    case("gemma3_ropes", "gemma3_text", "layers with a window have a RoPE of their own, in the words of transformers 4",
         off_config(rope_parameters=dict(full_attention=THETAS["full_attention"], sliding_attention=THETAS["full_attention"])),
         base=GEMMA3, rope_parameters=dict(THETAS, full_attention=rope("linear", theta=500.0, factor=4.0)), edit=dialect_4,
         logits_only=True),
    case("gemma3_windows", "gemma3_text", "windows by layer_types, logits capped", off_windows(), base=GEMMA3,
         rope_parameters=THETAS, final_logit_softcapping=5.0),
    case("gemma3_multimodal", "gemma3", "the language model of Gemma3ForConditionalGeneration", off_identity("language_model.*[qk]_norm$"),
         base={}, text_config=dict(GEMMA3, rope_parameters=THETAS), vision_config=VISION, mm_tokens_per_image=4, prepare=blind,
         lora=dict(target_modules=r".*language_model\..*\.(q_proj|v_proj|down_proj)"), store=old_names),
]
