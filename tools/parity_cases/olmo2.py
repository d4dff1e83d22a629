"""OLMo 2: models/olmo2."""

from parity_cases.common import case, off_biases, off_forward, rope


def off_identity(pattern):
    return off_forward(pattern, lambda m: lambda x: x)


CASES = [
    case("olmo2", "olmo2", "q and k normed over all heads", off_identity("[qk]_norm$"), rope_parameters=rope()),
    case("olmo2_post_norms", "olmo2", "norms behind the branches; biases; tied", off_identity("post_(attention|feedforward)_layernorm$"),
         attention_bias=True, tie_word_embeddings=True, rope_parameters=rope(), lora=dict(bias="lora_only")),
    case("olmo2_full", "olmo2", "every weight trained, biases of attention", off_biases("[qkvo]_proj"), full=True,
         attention_bias=True, rope_parameters=rope()),
]
