"""PyTorch: scaled_dot_product_attention, and FlexAttention as it is meant to be used, compiled."""

import torch
import torch._dynamo
import torch.nn.functional as F
from torch.nn.attention import SDPBackend
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def prepare(threads):
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)


def tensors(problem):
    """q, k and v as [sequence, head, token, channel]."""
    outer = slice(None) if problem.decodes else None
    return [torch.from_numpy(x)[outer].to(DTYPES[problem.dtype]) for x in problem.tensors()]


def latents(problem):
    """The tensors of latents."""
    return [torch.from_numpy(x).to(DTYPES[problem.dtype]) for x in problem.latents()]


def expanding(problem):
    """q as [1, head, token, channel], and a call that makes keys and values of all heads of latents."""
    q_nope, q_rope, c_kv, k_rope, w_uk, w_uv = latents(problem)
    q = torch.cat([q_nope, q_rope], -1)[None]
    # One product for all heads.
    keys, values = (w.flatten(0, 1).T.contiguous() for w in (w_uk, w_uv))
    rotary = k_rope[None].expand(problem.heads, -1, -1)

    def expand():
        made = (c_kv @ keys).unflatten(1, (problem.heads, problem.nope)).transpose(0, 1)
        v = (c_kv @ values).unflatten(1, (problem.heads, problem.value)).transpose(0, 1)
        return torch.cat([made, rotary], -1)[None], v[None]

    return q, expand


def answer(call):
    return lambda: call().float().numpy()


class Sdpa:
    """Ways: `sdpa`, and `sdpa-repeat` where heads of keys and values are repeated beforehand, untimed. Of latents, `sdpa` and
    `sdpa-padded`, which makes keys and values first, timed, with values as wide as keys; and `sdpa-absorbed`, on the latents
    themselves, where bringing queries to them and outputs back is not timed.
    """

    def __init__(self, threads, _libraries):
        prepare(threads)
        self.version = torch.__version__

    def setup(self, problem):
        if problem.rank:
            return self.absorbed(problem) if problem.decodes else self.expanded(problem)
        q, k, v = tensors(problem)
        grouped = problem.group > 1
        if problem.way == "sdpa-repeat":
            k, v = (x.repeat_interleave(problem.group, 1) for x in (k, v))
            grouped = False
        # The last token sees all that are cached.
        bias = None if problem.decodes else problem.bias()
        bias = None if bias is None else torch.from_numpy(bias)[None].to(q.dtype)
        causal = problem.causal and bias is None and not problem.decodes

        def call():
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=bias, is_causal=causal, scale=problem.scale, enable_gqa=grouped
            )

        choice = torch._fused_sdp_choice(q, k, v, bias, 0.0, causal, scale=problem.scale, enable_gqa=grouped)
        return call, answer(call), SDPBackend(choice).name.lower()

    @staticmethod
    def expanded(problem):
        q, expand = expanding(problem)
        padding = problem.dim - problem.value if problem.way == "sdpa-padded" else 0

        def call():
            k, v = expand()
            v = F.pad(v, (0, padding)) if padding else v
            o = F.scaled_dot_product_attention(q, k, v, is_causal=problem.causal, scale=problem.scale)
            return o[..., : problem.value]

        return call, answer(call), "with the expansion"

    @staticmethod
    def absorbed(problem):
        q_nope, q_rope, c_kv, k_rope, w_uk, w_uv = latents(problem)
        # Heads are the queries of one head of latents; values are as wide as keys, which keeps to the fused path.
        q = torch.cat([q_nope @ w_uk, q_rope], -1).transpose(0, 1)[None].contiguous()
        k = torch.cat([c_kv, k_rope], -1)[None, None].contiguous()

        def call():
            return F.scaled_dot_product_attention(q, k, k, scale=problem.scale)

        def output():
            latents = call()[0, 0, :, None, : problem.rank]
            return (latents @ w_uv.transpose(1, 2))[None].float().numpy()

        return call, output, "without W_uk and W_uv"


class Flex:
    """Way: `flex`. Masks are block masks, scores are modified by a function."""

    def __init__(self, threads, _libraries):
        prepare(threads)
        # One compilation for each workload and storage type; past the limits it would run uncompiled, silently.
        torch._dynamo.config.recompile_limit = 256
        torch._dynamo.config.accumulated_recompile_limit = 1024
        self.version = torch.__version__

    def setup(self, problem):
        if problem.rank:
            q, expand = expanding(problem)
        else:
            q, *given = tensors(problem)
            expand = lambda: given  # noqa: E731
        # A cache that holds earlier workloads' code only slows the search for this one's.
        torch._dynamo.reset()
        attention = torch.compile(flex_attention, dynamic=False)
        score, mask = self.score(problem), self.mask(problem)
        blocks = None
        if mask is not None:
            blocks = create_block_mask(mask, None, None, problem.tokens, problem.tokens, device="cpu")

        def call():
            k, v = expand()
            return attention(
                q, k, v, score_mod=score, block_mask=blocks, scale=problem.scale, enable_gqa=problem.group > 1
            )

        return call, answer(call), ""

    @staticmethod
    def score(problem):
        if problem.softcap:
            cap = problem.softcap
            return lambda s, b, h, i, j: cap * torch.tanh(s / cap)
        if problem.alibi:
            slopes = torch.tensor(problem.slopes(), dtype=torch.float32)
            return lambda s, b, h, i, j: s - slopes[h] * (i - j)
        return None

    @staticmethod
    def mask(problem):
        if problem.documents:
            document = torch.from_numpy(problem.document_of())
            return lambda b, h, i, j: (i >= j) & (document[i] == document[j])
        if problem.window:
            window = problem.window
            return lambda b, h, i, j: (i >= j) & (i - j < window)
        if problem.causal:
            return lambda b, h, i, j: i >= j
        return None
