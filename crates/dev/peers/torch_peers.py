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


def answer(call):
    return lambda: call().float().numpy()


class Sdpa:
    """Ways: `sdpa`, and `sdpa-repeat` where heads of keys and values are repeated beforehand, untimed."""

    def __init__(self, threads, _libraries):
        prepare(threads)
        self.version = torch.__version__

    def setup(self, problem):
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


class Flex:
    """Way: `flex`. Masks are block masks, scores are modified by a function."""

    def __init__(self, threads, _libraries):
        prepare(threads)
        # One compilation for each workload and storage type; past the limits it would run uncompiled, silently.
        torch._dynamo.config.recompile_limit = 256
        torch._dynamo.config.accumulated_recompile_limit = 1024
        self.version = torch.__version__

    def setup(self, problem):
        q, k, v = tensors(problem)
        # A cache that holds earlier workloads' code only slows the search for this one's.
        torch._dynamo.reset()
        attention = torch.compile(flex_attention, dynamic=False)
        score, mask = self.score(problem), self.mask(problem)
        blocks = None
        if mask is not None:
            blocks = create_block_mask(mask, None, None, problem.tokens, problem.tokens, device="cpu")

        def call():
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
