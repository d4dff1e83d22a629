"""RoAd (Liao and Monz 2024): the three variants."""

from peft import RoadConfig

from .common import LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: RoadConfig(**{**dict(group_size=8, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.5 * r if "theta" in name else 1 + 0.3 * r if "alpha" in name else None


CASES = [
    case("road", config(LLAMA_ALL), "an angle for each pair", start=start),
    case("road_2", config(["q_proj", "down_proj"], variant="road_2", group_size=4), "an angle for each output", start=start),
    case("road_4", config(["k_proj", "up_proj"], variant="road_4"), "each number of the rotation", start=start),
    case("road_neox", config(NEOX_ALL, group_size=16), "pairs with a bias", base="base_neox", start=start),
]
