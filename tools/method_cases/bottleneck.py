"""Bottleneck adapters, Compacter and ReFT against AdapterHub's `adapters` 1.3, which has an environment of its own (it pins
transformers 4.57): run tools/make_method_fixtures.py and tools/check_methods_back.py with that one for these cases."""

import json
import os
import re

import torch
from safetensors.torch import save_file

from .common import case as common_case

try:
    import adapters
    from adapters import AdapterPlusConfig, BnConfig, CompacterConfig, CompacterPlusPlusConfig, DiReftConfig, DoubleSeqBnConfig
    from adapters import DoubleSeqBnInvConfig, LoReftConfig, NoReftConfig, ParBnConfig, SeqBnConfig, SeqBnInvConfig
    from adapters.loading import AdapterLoader
except ImportError:
    adapters = None

NAME = "default"


def train(c, model):
    """train_adapter unfreezes what the configuration freezes."""
    model.train_adapter(NAME)
    if not c["config"]().to_dict().get("learn_phm", True):
        for n, p in model.named_parameters():
            if "phm_rule" in n:
                p.requires_grad = False
    return model


def build(c, base):
    adapters.init(base)
    base.add_adapter(NAME, config=c["config"]())
    return train(c, base)


def has_head(model):
    return hasattr(model, "classifier") or hasattr(model, "score")


def load(c, base, folder):
    adapters.init(base)
    if isinstance(c["config"](), DiReftConfig):  # a file cannot say that nothing is subtracted
        base.add_adapter(NAME, config=c["config"]())
    base.load_adapter(folder, use_safetensors=True, set_active=True, with_head=has_head(base))
    return train(c, base)


def save(c):
    def write(model, folder):
        model.save_adapter(folder, NAME, use_safetensors=False, with_head=has_head(model))
        os.remove(os.path.join(folder, "pytorch_adapter.bin"))
        if has_head(model):
            pickle = os.path.join(folder, "pytorch_model_head.bin")
            save_file({k: v.clone() for k, v in torch.load(pickle, weights_only=True).items()}, os.path.join(folder, "model_head.safetensors"))
            os.remove(pickle)
        # what use_safetensors=True would write, if it did not refuse tensors that have two names
        named = AdapterLoader(model).filter_func(NAME)  # which misses what stands above T5's two stacks
        state = AdapterLoader(model).weights_helper.state_dict(lambda k: named(k) or k.startswith(f"shared_parameters.{NAME}."))
        seen, out = set(), {}
        for k in sorted(state, key=lambda k: ("adapter_down.0" in k or ".pool." in k, k)):
            if state[k].data_ptr() not in seen:
                out[k] = state[k].contiguous().clone()
            seen.add(state[k].data_ptr())
        save_file(out, os.path.join(folder, "adapter.safetensors"))
        path = os.path.join(folder, "head_config.json")
        if has_head(model):
            json.dump({**json.load(open(path)), "model_name": c["base"]}, open(path, "w"), indent=2, sort_keys=True)
        path = os.path.join(folder, "adapter_config.json")
        info = json.load(open(path))
        info["model_name"] = c["base"]
        if getattr(c["config"](), "subtract_projection", None) is False:
            info["config"]["subtract_projection"] = False  # which AdapterHub forgets
        json.dump(info, open(path, "w"), indent=2, sort_keys=True)

    return write


def groups(model, optim):
    """As transformers' Trainer, which looks at the module too; and a diagonal that holds signs does not decay."""
    norms = {id(p) for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters()}
    decay, rest = [], []
    for n, p in model.named_parameters():
        if p.requires_grad:
            keep = id(p) in norms or "bias" in n or ".original" in n
            (rest if keep else decay).append(p)
    return [dict(params=decay, weight_decay=optim["weight_decay"]), dict(params=rest, weight_decay=0.0)]


def start(name, data, r):
    if re.search(r"parametrizations\.weight\.original", name):
        return data + 0.2 * r.triu(1)  # the diagonal stays
    if re.search(r"phm_rule|W_left|W_right|\.W$|shared_parameters", name):
        return 0.7 * r
    if "norm" in name or "scaling" in name:
        return data + 0.3 * r
    if name.endswith("bias") or name.endswith(".b"):
        return 0.2 * r
    return 0.8 * r / data.shape[-1] ** 0.5


def randomize(c, model, gen):
    """The usual way, and a rule that is not learned."""
    for n, p in sorted(model.named_parameters()):
        if p.requires_grad or "phm_rule" in n:
            p.data = start(n, p.data, torch.randn(p.shape, generator=gen))


def case(name, config, what, **more):
    more = {**dict(randomize=randomize, merges=False, groups=groups, build=build, load=load, lr=0.01, defaults=lambda: {}), **more}
    c = common_case(name, config, what, **more)
    c["save"] = more.get("save") or save(c)
    c["extra"] = dict(adapters=adapters.__version__)
    return c


# ---- families that AdapterHub does not know ----------------------------------------------------------------------------
#
# Its rule for blocks that norm behind a branch (BERT's for OPT-350m, Gemma 2's for OLMo 2), written out with hooks on
# transformers' modules: x is the branch, r the stream, N the layer's own norm.


def places(model):
    """(layer, name of its adapter, module whose output is the branch, norm, whether that is of the sum, module whose input is the stream)"""
    olmo2 = model.config.model_type == "olmo2"
    for layer in model.get_decoder().layers:
        if olmo2:
            yield layer, "attention_adapters", layer.self_attn.o_proj, layer.post_attention_layernorm, False, layer.self_attn
            yield layer, "output_adapters", layer.mlp.down_proj, layer.post_feedforward_layernorm, False, layer.mlp
        else:
            yield layer, "attention_adapters", layer.self_attn.out_proj, layer.self_attn_layer_norm, True, layer.self_attn
            yield layer, "output_adapters", layer.fc2, layer.final_layer_norm, True, layer.fc1


def act(cfg, unit, branch, norm, of_sum, stream):
    seen = {}
    call = norm.forward  # without the hooks

    def remember(module, args, kwargs):
        seen["r"] = args[0] if args else kwargs["hidden_states"]

    def apply(x, r, before):
        h = before(x.view(r.shape) + r) if cfg.original_ln_before else x.view(r.shape)
        return unit(h, x.view(r.shape) if cfg.residual_before_ln else h)[0]

    def behind_branch(module, args, x):
        r = seen["r"]
        out = unit(r, r)[0] + x.view(r.shape) if cfg.is_parallel else apply(x, r, call)
        return out.view(x.shape)

    def behind_norm(module, args, y):
        if of_sum:  # y is N(x + r), which goes on
            return unit(y, y)[0].view(y.shape)
        r = seen["r"]  # y is N(x), and r is going to be added
        return apply(y, r, lambda z: z) - r

    stream.register_forward_pre_hook(remember, with_kwargs=True)
    if cfg.original_ln_after:
        branch.register_forward_hook(behind_branch)
    else:
        norm.register_forward_hook(behind_norm)


def build_hooked(c, base):
    from adapters.methods.modeling import Adapter, ParallelAdapter

    cfg = c["config"]()
    for p in base.parameters():
        p.requires_grad = False
    for layer, name, *where in places(base):
        if not (cfg.mh_adapter if name == "attention_adapters" else cfg.output_adapter):
            continue
        kind = ParallelAdapter if cfg.is_parallel else Adapter
        unit = kind(NAME, base.config.hidden_size, int(base.config.hidden_size // cfg.reduction_factor), cfg)
        holder = torch.nn.Module()
        holder.adapters = torch.nn.ModuleDict({NAME: unit})
        setattr(layer, name, holder)
        act(cfg, unit, *where)
    return base


def load_hooked(c, base, folder):
    from safetensors.torch import load_file

    model = build_hooked(c, base)
    state = load_file(os.path.join(folder, "adapter.safetensors"))
    assert set(state) == {k for k in model.state_dict() if f".adapters.{NAME}." in k}
    model.load_state_dict(state, strict=False)
    return model


def case_hooked(name, config, what, **more):
    def save_hooked(model, folder):
        save_file({k: v.contiguous() for k, v in model.state_dict().items() if f".adapters.{NAME}." in k}, os.path.join(folder, "adapter.safetensors"))
        info = dict(config=config().to_dict(), hidden_size=model.config.hidden_size, model_class=type(model).__name__, model_name=more["base"],
                    model_type=model.config.model_type, name=NAME, version="adapters." + adapters.__version__)
        json.dump(info, open(os.path.join(folder, "adapter_config.json"), "w"), indent=2, sort_keys=True)

    return case(name, config, what, build=build_hooked, load=load_hooked, save=save_hooked, **more)


CASES = [] if adapters is None else [
    case("seq_bn", lambda: SeqBnConfig(reduction_factor=4), "Pfeiffer"),
    case("double_seq_bn", lambda: DoubleSeqBnConfig(reduction_factor=4, leave_out=[1]), "Houlsby, one layer left out"),
    case("par_bn", lambda: ParBnConfig(), "parallel, constant scale"),
    case("scaled_par_bn", lambda: ParBnConfig(scaling="learned", non_linearity="tanh", mh_adapter=True, reduction_factor={"0": 8, "default": 4}),
         "parallel, learned scale, behind attention too, factors by layer"),
    case("seq_bn_inv", lambda: SeqBnInvConfig(reduction_factor=8, non_linearity="gelu_new"), "invertible"),
    case("double_seq_bn_inv", lambda: DoubleSeqBnInvConfig(reduction_factor=8, inv_adapter_reduction_factor=4, non_linearity="leakyrelu"),
         "invertible"),
    case("adapter_plus", lambda: AdapterPlusConfig(reduction_factor=6, stochastic_depth=0.0), "scale per channel"),
    case("compacter", lambda: CompacterConfig(reduction_factor=4), "shared rule, factorized W"),
    case("compacter_own", lambda: CompacterPlusPlusConfig(reduction_factor=4, shared_phm_rule=False, factorized_phm_rule=True, phm_rank=2, phm_dim=2,
                                                     learn_phm=False, phm_bias=False), "factorized rules of its own, not learned; no bias"),
    case("compacter_whole", lambda: CompacterPlusPlusConfig(reduction_factor=4, factorized_phm_W=False, shared_phm_rule=False), "whole W, whole rules"),
    case("compacter_shared", lambda: CompacterConfig(reduction_factor=4, shared_W_phm=True, factorized_phm_rule=True), "shared W and rule"),
    case("bn_norms", lambda: SeqBnConfig(reduction_factor=4, ln_before=True, ln_after=True, mh_adapter=True, non_linearity="silu"),
         "layer norms before and after, residual outside"),
    case("bn_norms_inside", lambda: SeqBnConfig(reduction_factor=4, ln_after=True, adapter_residual_before_ln=True, residual_before_ln=False),
         "residual inside of the norm, from behind the sum"),
    case("bn_double_residual", lambda: BnConfig(mh_adapter=True, output_adapter=False, reduction_factor=4, non_linearity="relu6", scaling=0.7,
                                                 original_ln_before=True, residual_before_ln=False), "the stream twice, attention alone"),
    case("bn_gating", lambda: SeqBnConfig(reduction_factor=4, use_gating=True, mh_adapter=True), "a gate for the whole text"),
    case("par_bn_gating", lambda: ParBnConfig(reduction_factor=4, use_gating=True, scaling="learned"), "a gate beside a learned scale",
         base="base_gpt2"),
    case("seq_bn_gpt2", lambda: SeqBnConfig(reduction_factor=4), "Pfeiffer", base="base_gpt2"),
    case("double_seq_bn_gpt2", lambda: DoubleSeqBnInvConfig(reduction_factor=8), "Houlsby, invertible", base="base_gpt2"),
    case("par_bn_gpt2", lambda: ParBnConfig(), "parallel", base="base_gpt2"),
    case("adapter_plus_gpt2", lambda: AdapterPlusConfig(reduction_factor=6, stochastic_depth=0.0), "scale per channel", base="base_gpt2"),
    case("compacter_gpt2", lambda: CompacterConfig(reduction_factor=4), "shared rule", base="base_gpt2"),
    case("double_seq_bn_phi", lambda: DoubleSeqBnInvConfig(reduction_factor=8), "side by side, invertible with its inverse", base="base_phi"),
    case("seq_bn_phi", lambda: SeqBnConfig(reduction_factor=4, mh_adapter=True), "side by side", base="base_phi"),
    case("seq_bn_bert", lambda: SeqBnConfig(reduction_factor=4), "Pfeiffer, between the sum and its norm", base="base_bert"),
    case("double_seq_bn_bert", lambda: DoubleSeqBnInvConfig(reduction_factor=8, leave_out=[0]), "Houlsby, invertible, one layer left out", base="base_bert"),
    case("par_bn_bert", lambda: ParBnConfig(), "parallel", base="base_bert"),
    case("adapter_plus_bert", lambda: AdapterPlusConfig(reduction_factor=6, stochastic_depth=0.0), "behind the norm", base="base_bert"),
    case("compacter_bert", lambda: CompacterConfig(reduction_factor=4), "shared rule", base="base_bert"),
    case("bn_norms_bert", lambda: SeqBnConfig(reduction_factor=4, ln_before=True, ln_after=True, mh_adapter=True, residual_before_ln=False),
         "norms before and after, the residual from behind the model's", base="base_bert"),
    case("seq_bn_xlmr", lambda: SeqBnInvConfig(reduction_factor=4, mh_adapter=True), "XLM-R, a class per token, invertible", base="base_xlmr"),
    case("scaled_par_bn_xlmr", lambda: ParBnConfig(scaling="learned", mh_adapter=True, reduction_factor=4), "XLM-R, parallel, learned scale, behind attention too", base="base_xlmr"),
    case("seq_bn_t5", lambda: SeqBnConfig(reduction_factor=4), "Pfeiffer, in both stacks", base="base_t5"),
    case("double_seq_bn_t5", lambda: DoubleSeqBnInvConfig(reduction_factor={"3": 4, "default": 8}, cross_adapter=True, leave_out=[1, 4]),
         "Houlsby, behind cross attention too, invertible; layers counted over both stacks", base="base_t5"),
    case("par_bn_t5", lambda: ParBnConfig(mh_adapter=True, reduction_factor=4), "parallel, behind self-attention too", base="base_t5"),
    case("adapter_plus_t5", lambda: AdapterPlusConfig(reduction_factor=6, stochastic_depth=0.0), "scale per channel", base="base_t5"),
    case("compacter_t5", lambda: CompacterConfig(reduction_factor=4), "shared rule", base="base_t5", lr=0.003),
    case("bn_norms_t5", lambda: BnConfig(mh_adapter=False, output_adapter=False, cross_adapter=True, reduction_factor=4, non_linearity="tanh",
         ln_before=True, ln_after=True, original_ln_before=True), "cross attention alone, norms before and after", base="base_t5"),
    case("loreft_t5", lambda: LoReftConfig(r=2, dropout=0.0, tied_weights=True), "orthogonal, in both stacks", base="base_t5"),
    case("direft_t5", lambda: DiReftConfig(r=6, dropout=0.0, layers=[1, 2, 3]), "the encoder's last layer and the decoder's first two", base="base_t5", lr=0.03,
         optim=dict(max_grad_norm=0.3)),
    case("seq_bn_gemma2", lambda: SeqBnConfig(reduction_factor=4, mh_adapter=True), "between a branch and its norm", base="base_gemma2"),
    case("double_seq_bn_gemma2", lambda: DoubleSeqBnInvConfig(reduction_factor=4), "Houlsby, invertible", base="base_gemma2"),
    case("par_bn_gemma3", lambda: ParBnConfig(mh_adapter=True, reduction_factor=4), "parallel", base="base_gemma3"),
    case("seq_bn_gemma3", lambda: SeqBnInvConfig(reduction_factor=4, residual_before_ln=False), "the residual from behind the norm, invertible", base="base_gemma3"),
    case_hooked("seq_bn_olmo2", lambda: SeqBnConfig(reduction_factor=4, mh_adapter=True), "between a branch and its norm", base="base_olmo2"),
    case_hooked("adapter_plus_olmo2", lambda: AdapterPlusConfig(reduction_factor=4, mh_adapter=True, stochastic_depth=0.0), "behind the norm of a branch", base="base_olmo2"),
    case_hooked("par_bn_opt350m", lambda: ParBnConfig(reduction_factor=4, mh_adapter=True), "parallel, before the sum's norm", base="base_opt350m"),
    case_hooked("seq_bn_opt350m", lambda: SeqBnConfig(reduction_factor=4, mh_adapter=True), "before the sum's norm", base="base_opt350m"),
    case_hooked("adapter_plus_opt350m", lambda: AdapterPlusConfig(reduction_factor=4, stochastic_depth=0.0), "behind the sum's norm", base="base_opt350m"),
    case("bn_post_add_bert", lambda: SeqBnConfig(reduction_factor=8, mh_adapter=True, residual_before_ln="post_add"), "the residual from before the norm", base="base_bert"),
    case("bn_gating_bert", lambda: SeqBnConfig(reduction_factor=8, mh_adapter=True, use_gating=True), "gates, between a sum and its norm", base="base_bert"),
    case("bn_gating_t5", lambda: ParBnConfig(reduction_factor=8, use_gating=True, cross_adapter=True), "gates of source and answer", base="base_t5"),
    case("loreft_bert", lambda: LoReftConfig(r=2, dropout=0.0), "orthogonal", base="base_bert"),
    case("loreft", lambda: LoReftConfig(r=3, dropout=0.0), "orthogonal, prefix of three"),
    case("loreft_tied", lambda: LoReftConfig(r=2, dropout=0.0, tied_weights=True, layers=[1], prefix_positions=5, non_linearity="relu"),
         "one unit, one layer, a function"),
    case("noreft", lambda: NoReftConfig(r=2, dropout=0.0), "not orthogonal"),
    case("direft", lambda: DiReftConfig(r=2, dropout=0.0), "nothing subtracted", optim=dict(max_grad_norm=0.3)),
    case("loreft_gpt2", lambda: LoReftConfig(r=2, dropout=0.0), "orthogonal", base="base_gpt2"),
]
