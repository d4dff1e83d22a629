"""Loading for prompt learning, which peft loads for inference only: the encoder is made anew and its rows are set."""

import os

from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file


def load(c, base, folder):
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = False
    model = get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = c["base"]
    set_peft_model_state_dict(model, load_file(os.path.join(folder, "adapter_model.safetensors")))
    return model
