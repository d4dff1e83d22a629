"""(IA)3 (Liu et al. 2022): factors at outputs, at the inputs of feedforward modules, on two families."""

from peft import IA3Config

from .common import HEAD, case


def start(name, data, r):
    return 1 + 0.4 * r if "ia3_l" in name else None


def config(**more):
    return lambda: IA3Config(**{**dict(task_type="CAUSAL_LM"), **more})


CASES = [
    case("ia3", config(), "peft's usual modules for llama, biases on keys and values", start=start, lr=0.05),
    case("ia3_neox", config(), "fused query_key_value, a feedforward module with a bias", base="base_neox", start=start, lr=0.05,
         optim=dict(max_grad_norm=0.3)),
    case("ia3_names", config(target_modules=["v_proj", "o_proj", "gate_proj"], feedforward_modules=["o_proj"], modules_to_save=["norm", "lm_head"]),
         "other modules, an input in attention, a norm and the head trained whole", start=start, lr=0.05),
    case("ia3_head", config(target_modules=["v_proj", "lm_head", "down_proj"], feedforward_modules=["down_proj"]),
         "factors of the logits", start=start, lr=0.05, not_written=HEAD),
]
