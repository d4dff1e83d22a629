"""VeRA (Kopiczko et al. 2023): the shared matrices in the file, or drawn again from the seed."""

from peft import VeraConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: VeraConfig(**{**dict(r=6, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.5 * r if "vera_lambda_b" in name else 1 + 0.5 * r if "vera_lambda_d" in name else None


CASES = [
    case("vera", config(LLAMA_ALL), "layers of several sizes share two matrices", start=start, lr=0.02),
    case("vera_drawn", config(["q_proj", "down_proj"], save_projection=False, projection_prng_key=7), "the matrices are not in the file",
         start=start, lr=0.02),
    case("vera_neox", config(NEOX_ALL), "fused query_key_value", base="base_neox", start=start, lr=0.02),
    case("vera_head", config(["lm_head", "v_proj"]), "the head", start=start, lr=0.02, not_written=HEAD),
]
