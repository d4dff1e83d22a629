"""SHiRA (Bhardwaj et al. 2024): places drawn from a seed, and without one."""

from peft import ShiraConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: ShiraConfig(**{**dict(r=2, random_seed=7, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.3 * r if "shira_weight" in name else None


CASES = [
    case("shira", config(["q_proj", "v_proj", "up_proj", "down_proj"]), "layers of several sizes", start=start),
    case("shira_head", config(["lm_head", "down_proj"], r=1, random_seed=0), "the head", start=start, lr=0.03, not_written=HEAD, optim=dict(max_grad_norm=0.5)),
    case("shira_neox", config(NEOX_ALL, r=1), "fused query_key_value", base="base_neox", start=start, lr=0.03, optim=dict(max_grad_norm=0.5)),
]
