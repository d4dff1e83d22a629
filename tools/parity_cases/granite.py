"""Granite: models/granite."""

from functools import partial

from parity_cases import common
from parity_cases.common import BASE, LLAMA_ALL, off_biases, off_config, rope

GRANITE = dict(BASE, embedding_multiplier=3.0, logits_scaling=2.5, residual_multiplier=0.4, attention_multiplier=0.2)
case = partial(common.case, base=GRANITE)

CASES = [
    case("granite", "granite", "branches times residual_multiplier; tied", off_config(residual_multiplier=1.0), tie_word_embeddings=True,
         rope_parameters=rope()),
    case("granite_embedding", "granite", "embeddings times embedding_multiplier; LoRA on them and on the head",
         off_config(embedding_multiplier=1.0), lora=dict(target_modules=LLAMA_ALL + ["lm_head"]), rope_parameters=rope()),
    case("granite_logits", "granite", "logits divided by logits_scaling, every weight trained", off_config(logits_scaling=1.0),
         full=True, logits_scaling=0.4, rope_parameters=rope()),
    case("granite_attention", "granite", "scores times attention_multiplier", off_config(attention_multiplier=0.05),
         attention_multiplier=0.8, residual_multiplier=1.2, embedding_multiplier=0.5, logits_scaling=1.0, rope_parameters=rope(), logits_only=True),
    case("granite_bias", "granite", "attention_bias and mlp_bias", off_biases("proj"), attention_bias=True, mlp_bias=True,
         residual_multiplier=1.2, logits_scaling=0.5, rope_parameters=rope(), logits_only=True),
]
