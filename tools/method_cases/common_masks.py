"""The masks of src/ops/activation/step_mask.h in Python, played to peft where it draws its own (rank_dropout, module_dropout,
boft_dropout): with(...) of a case as `before_step`. Philox4x32-10, pf_hash64 and what is drawn from them are as in src/base/."""

import torch

SEED = 0  # of an adapter that comes from a folder
STEP_MASK = 7  # PF_RNG_STEP_MASK
M32, M64 = 2**32 - 1, 2**64 - 1


def philox(key, c):
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = ((p1 >> 32) ^ c[1] ^ k0, p1 & M32, (p0 >> 32) ^ c[3] ^ k1, p0 & M32)
        k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
    return c


def hash64(text):
    def mix(a, b):
        p = a * b
        return (p & M64) ^ (p >> 64)

    data = text.encode()
    n, h = len(data), 0x9E3779B97F4A7C15
    while len(data) >= 16:
        a, b = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little")
        h = mix(a ^ 0xA0761D6478BD642F ^ h, b ^ 0xE7037ED1A0B428DB)
        data = data[16:]
    a, b = int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")
    h = mix(a ^ 0x8EBC6AF09C88C6E3 ^ h, b ^ 0x589965CC75374CC3 ^ n)
    return mix(h ^ 0x1D8E4E27C47D124F, h >> 32 | 1)


def key_of(step, site, kind):
    salted = philox((SEED & M32, SEED >> 32), (STEP_MASK, step & M32, step >> 32, 0x70656674))[:2]
    h = hash64(site)
    return philox(salted, (h & M32, h >> 32, kind, 0))[:2]


def draw(key, n, attempt=0):
    return philox(key, (n & M32, n >> 32, attempt, 0))


def uniform_at(key, n):
    r = draw(key, n)
    return ((r[0] << 32 | r[1]) >> 11) * 2.0**-53


def below_at(key, n, bound):
    limit, attempt = M64 - M64 % bound, 0
    while bound > 1:
        r = draw(key, n, attempt)
        v = r[0] << 32 | r[1]
        if v < limit:
            return v % bound
        attempt += 1
    return 0


def permutation(key, n):
    out = list(range(n))
    for i in range(n - 1, 0, -1):
        j = below_at(key, i, i + 1)
        out[i], out[j] = out[j], out[i]
    return out


class Playing:
    """torch's generators while a module of peft draws: its step and name are known by a hook that runs before its forward pass."""

    def __init__(self):
        self.step, self.site = 0, None
        self.real = torch.rand, torch.randint, torch.randperm

    def rand(self, n):
        if n == 1:  # module_dropout
            return torch.tensor([uniform_at(key_of(self.step, self.site, 1), 0)], dtype=torch.float64)
        key = key_of(self.step, self.site, 0)
        return torch.tensor([uniform_at(key, c) for c in range(n)], dtype=torch.float64)

    def randint(self, low, high, size):  # the factor of BOFT; permutation() comes next and knows the number of blocks
        self.sets = high
        return torch.tensor([below_at(key_of(self.step, self.site, 2), self.blocks, high)])

    def randperm(self, n):
        return torch.tensor(permutation(key_of(self.step, self.site, 2), n))


def masks(blocks=None, patch=None):
    """-> before_step. blocks(layer): number of blocks of a factor; patch(layer): once, before it is used."""
    playing = Playing()

    def enter(layer, _):
        playing.site, playing.blocks = layer.played_as, blocks(layer) if blocks else 0
        torch.rand, torch.randint, torch.randperm = playing.rand, playing.randint, playing.randperm

    def leave(layer, _, out):
        torch.rand, torch.randint, torch.randperm = playing.real

    def before_step(model, step):
        playing.step = step
        for name, layer in model.named_modules():
            if not hasattr(layer, "base_layer") or hasattr(layer, "played_as"):
                continue
            layer.played_as = name.removeprefix("base_model.model.")
            if patch:
                patch(layer)
            for m in layer.modules():
                if m is not layer.base_layer:
                    m.training = True
            layer.register_forward_pre_hook(enter)
            layer.register_forward_hook(leave)

    return before_step


def zero_gradients(model):
    """Added to the loss: a module that is left out has a zero gradient, and torch updates it as we do, not none."""
    return sum(0 * p.sum() for p in model.parameters() if p.requires_grad)
