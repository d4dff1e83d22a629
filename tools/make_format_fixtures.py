"""Makes tests/golden/formats: files written by the reference libraries, small, that the tests read and write again.

Needs safetensors, torch, numpy, huggingface_hub (see tests/golden/formats/README.md for the versions used).
Run from the root of the repository: python tools/make_format_fixtures.py
"""
import json
import os
import shutil
import struct
import sys
import zipfile

import huggingface_hub
import numpy
import safetensors
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import _TYPES, save_file

OUT = "tests/golden/formats"


def numbers(shape, dtype, start=0):
    """Values that every type can hold, different from element to element."""
    n = int(numpy.prod(shape))
    x = (torch.arange(start, start + n) * 5 % 37).reshape(shape)
    if dtype == torch.bool:
        return x % 2 == 0
    if dtype.is_floating_point or dtype.is_complex:
        return ((x - 18) / 8 if dtype != torch.float8_e8m0fnu else x.abs() + 1).to(dtype)
    return x.to(dtype)


def all_types():
    tensors = {}
    for i, (name, dtype) in enumerate(sorted(_TYPES.items())):
        tensors[f"layer.{name.lower()}"] = numbers((2, 3), dtype, 7 * i)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["scalar"] = torch.tensor(-2.5)
    tensors["three.dims"] = numbers((2, 1, 5), torch.bfloat16, 3)
    tensors['quote " backslash \\ newline \n bell \x07 é 日本 😀'] = numbers((3,), torch.int64)
    save_file(tensors, f"{OUT}/all_types.safetensors", {"format": "pt"})


def adapter():
    tensors = {}
    for layer in range(2):
        for module in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{stem}.lora_A.weight"] = numbers((2, 8), torch.float32, layer)
            tensors[f"{stem}.lora_B.weight"] = numbers((8 if module == "q_proj" else 4, 2), torch.float32, layer + 2)
    os.makedirs(f"{OUT}/adapter")
    save_file(tensors, f"{OUT}/adapter/adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 2, "lora_alpha": 4,
              "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0, "bias": "none", "task_type": "CAUSAL_LM",
              "inference_mode": True}
    with open(f"{OUT}/adapter/adapter_config.json", "w") as f:
        f.write(json.dumps(config, indent=2, sort_keys=True))


def sharded():
    """As transformers' save_pretrained does it, with shards of at most 100 bytes."""
    state = {"model.embed_tokens.weight": numbers((6, 4), torch.bfloat16)}
    for layer in range(3):
        state[f"model.layers.{layer}.mlp.up_proj.weight"] = numbers((5, 4), torch.bfloat16, layer)
        state[f"model.layers.{layer}.input_layernorm.weight"] = numbers((4,), torch.float32, layer)
    state["lm_head.weight"] = numbers((30, 2), torch.bfloat16, 9)  # larger than a shard
    state["model.norm.wéight"] = numbers((4,), torch.float32, 5)
    split = split_torch_state_dict_into_shards(state, filename_pattern="model{suffix}.safetensors", max_shard_size=100)
    os.makedirs(f"{OUT}/sharded")
    for file, names in split.filename_to_tensors.items():
        save_file({n: state[n] for n in names}, f"{OUT}/sharded/{file}", {"format": "pt"})
    parameters = sum(t.numel() for t in state.values())
    index = {"metadata": {"total_parameters": parameters, **split.metadata}, "weight_map": split.tensor_to_filename}
    with open(f"{OUT}/sharded/model.safetensors.index.json", "w", encoding="utf-8") as f:
        f.write(json.dumps(index, indent=2, sort_keys=True) + "\n")


def unaligned():
    """A header of odd length, as early writers left it: legal, and no tensor is aligned."""
    header = b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"U8","shape":[1],"data_offsets":[12,13]}}'
    header += b" " * (1 - len(header) % 2)
    data = struct.pack("<3f", 1.0, -2.0, 0.5) + b"\x07"
    with open(f"{OUT}/unaligned.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header + data)
    safetensors.deserialize(open(f"{OUT}/unaligned.safetensors", "rb").read())


def pickled():
    """A state dict as torch.save writes it; one storage is shared. And the same tensors for our writer."""
    types = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool, torch.complex64]
    state = {f"layer.{i}.{str(t)[6:]}": numbers((2, 3), t, i) for i, t in enumerate(types)}
    state["embed.weight"] = numbers((300, 1), torch.uint8)
    state["conv"] = numbers((2, 1, 3, 1), torch.float32, 4)
    state["scalar"] = torch.tensor(2.5)
    state["empty.é"] = torch.zeros(0, 3)
    state["vector"] = torch.zeros(3, dtype=torch.int8)
    save_file(state, f"{OUT}/state.safetensors", {"format": "pt"})
    state["head.weight"] = state["embed.weight"].detach()
    for name, tensors in {"state": state, "one": {"only": torch.ones(2)}}.items():
        torch.save(tensors, f"{OUT}/{name}.pt")
        with zipfile.ZipFile(f"{OUT}/{name}.pt") as z, open(f"{OUT}/{name}.pkl", "wb") as f:
            f.write(z.read(f"{name}/data.pkl"))
        os.remove(f"{OUT}/{name}.pt")


def seeds():
    """The seed corpora of the fuzz targets: good files, and bad ones that reach deep before they fail."""
    out = "tests/fuzz/corpus/fuzz_safetensors"
    os.makedirs(out, exist_ok=True)
    for name in ("all_types", "unaligned", "adapter/adapter_model", "sharded/model-00002-of-00004"):
        shutil.copy(f"{OUT}/{name}.safetensors", f"{out}/{name.replace('/', '_')}")

    def raw(name, header, n_data):
        header = header.encode()
        with open(f"{out}/{name}", "wb") as f:
            f.write(struct.pack("<Q", len(header)) + header + bytes(range(n_data)))

    u8 = '{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}'
    raw("empty", "{}", 0)
    raw("metadata", '{"__metadata__":{"format":"pt","a":"\\u00e9\\ud83d\\ude00"},"t":' + u8 % (1, 0, 1) + "}   ", 1)
    raw("overlap", '{"a":' + u8 % (2, 0, 2) + ',"b":' + u8 % (2, 1, 3) + "}", 3)
    raw("hole", '{"a":' + u8 % (1, 0, 1) + ',"b":' + u8 % (1, 2, 3) + "}", 3)
    raw("twice", '{"a":' + u8 % (1, 0, 1) + ',"\\u0061":' + u8 % (1, 1, 2) + "}", 2)
    raw("overflow", '{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}}', 8)
    raw("zero", '{"a":{"dtype":"F6_E2M3","shape":[4,0,9],"data_offsets":[0,0]},"b":{"dtype":"F4","shape":[],"data_offsets":[0,1]}}', 1)

    out = "tests/fuzz/corpus/fuzz_shard_index"
    os.makedirs(out, exist_ok=True)
    shutil.copy(f"{OUT}/sharded/model.safetensors.index.json", f"{out}/sharded")
    for name, text in {"small": '{"weight_map":{"b":"2","c":"sub/1","a":"2"}}',
                       "out": '{"weight_map":{"a":"../m.safetensors"}}',
                       "twice": '{"weight_map":{"a":"m","a":"m"}}'}.items():
        with open(f"{out}/{name}", "w") as f:
            f.write(text)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    all_types()
    adapter()
    sharded()
    unaligned()
    pickled()
    seeds()
    with open(f"{OUT}/README.md", "w") as f:
        f.write("# Files written by the reference libraries\n\nMade by `tools/make_format_fixtures.py` with "
                f"safetensors {safetensors.__version__}, torch {torch.__version__.split('+')[0]}, "
                f"huggingface_hub {huggingface_hub.__version__}.\n\n"
                "- `all_types.safetensors`: every type the library can save, an empty tensor, a scalar, a name full of escapes\n"
                "- `unaligned.safetensors`: a legal file whose data stand at odd addresses\n"
                "- `state.pkl`: the pickle in what torch.save makes of `state.safetensors` and a tied tensor; `one.pkl`: of one tensor\n"
                "- `adapter/`: a small LoRA adapter in PEFT's format\n"
                "- `sharded/`: shards of at most 100 bytes and their index, as transformers writes them\n")


if __name__ == "__main__":
    sys.exit(main())
