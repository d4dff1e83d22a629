"""HiRA (Huang et al. 2025): factors for each number of the weight."""

from peft import HiraConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: HiraConfig(**{**dict(r=4, target_modules=targets, init_weights="gaussian", task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.4 * r if "hira" in name else None


CASES = [
    case("hira", config(LLAMA_ALL), "all linear layers", start=start),
    case("hira_patterns", config(["q_proj", "down_proj", "lm_head"], layers_to_transform=[1], modules_to_save=["norm"]),
         "the head, one layer, a norm", start=start, not_written=HEAD),
    case("hira_neox", config(NEOX_ALL), "fused query_key_value", base="base_neox", start=start),
]
