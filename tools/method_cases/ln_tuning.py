"""Layer-norm tuning (Zhao et al. 2023): copies of norms, on two families."""

from peft import LNTuningConfig

from .common import case

CASES = [
    case("ln_tuning", lambda: LNTuningConfig(task_type="CAUSAL_LM"), "peft's usual norms for llama", lr=0.05, spread=0.5),
    case("ln_tuning_names", lambda: LNTuningConfig(task_type="CAUSAL_LM", target_modules=["norm", "1.mlp.up_proj"], modules_to_save=["lm_head"]),
         "a norm and a linear layer by name, the head trained whole", lr=0.02, spread=0.5),
    case("ln_tuning_neox", lambda: LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm", "final_layer_norm"]),
         "norms with biases", base="base_neox", lr=0.05, spread=0.5),
]
