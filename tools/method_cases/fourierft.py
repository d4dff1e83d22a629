"""FourierFT (Gao et al. 2024): places drawn from the seed."""

from peft import FourierFTConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: FourierFTConfig(**{**dict(n_frequency=60, scaling=60.0, target_modules=targets, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return r if "spectrum" in name else None


CASES = [
    case("fourierft", config(LLAMA_ALL), "all linear layers", start=start, lr=0.05),
    case("fourierft_seed", config(["q_proj", "down_proj"], random_loc_seed=5, n_frequency=200, init_weights=True), "another seed",
         start=start, lr=0.05),
    case("fourierft_neox", config(NEOX_ALL), "fused query_key_value", base="base_neox", start=start, lr=0.05,
         optim=dict(max_grad_norm=0.5, eps=1e-4)),
    case("fourierft_head", config(["lm_head", "dense"]), "the head", base="base_neox", start=start, lr=0.05, optim=dict(max_grad_norm=0.3, eps=1e-4),
         not_written=HEAD),
    case("fourierft_pattern", config(["q_proj", "v_proj", "down_proj"], n_frequency_pattern={"q_proj": 20, "mlp.down_proj": 100}),
         "n_frequency_pattern", start=start, lr=0.05, optim=dict(max_grad_norm=0.3)),
]
