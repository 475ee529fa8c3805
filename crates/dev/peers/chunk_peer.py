"""Recurrences in PyTorch: chunks of products of matrices, as model code has them, eager and compiled."""

import torch
import torch._dynamo

from torch_peers import answer, prepare, tensors

# Tokens of a chunk.
CHUNK = 64


def linear(q, k, v, scale):
    """Causal linear attention of [1, head, token, channel]: the states that chunks begin with are sums over those before."""
    q, k, v = (x.unflatten(2, (-1, CHUNK)) for x in (scale * q, k, v))
    written = (k.transpose(-1, -2) @ v).cumsum(2)
    states = torch.cat([torch.zeros_like(written[:, :, :1]), written[:, :, :-1]], 2)
    weights = (q @ k.transpose(-1, -2)).tril()
    return (q @ states + weights @ v).flatten(2, 3)


class Chunks:
    """Ways: `eager`, and `compile` by torch.compile. A gated delta rule is the one of Transformers' Qwen3-Next."""

    def __init__(self, threads, _libraries):
        prepare(threads)
        torch._dynamo.config.recompile_limit = 256
        torch._dynamo.config.accumulated_recompile_limit = 1024
        self.version = torch.__version__

    def setup(self, problem):
        torch._dynamo.reset()
        rule, note = self.sum(problem) if problem.recurrence == "sum" else self.gated_delta(problem)
        return rule, answer(rule), note

    @staticmethod
    def compiled(problem, function):
        return torch.compile(function, dynamic=False) if problem.way == "compile" else function

    def sum(self, problem):
        q, k, v = tensors(problem)
        function = self.compiled(problem, linear)
        return lambda: function(q, k, v, problem.scale), f"chunks of {CHUNK}"

    def gated_delta(self, problem):
        import transformers
        from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

        # [sequence, token, head, channel], and [sequence, token, head].
        q, k, v = (x.transpose(1, 2).contiguous() for x in tensors(problem))
        decay, beta = (torch.from_numpy(x).T[None].contiguous() for x in problem.gates())
        beta = beta.to(q.dtype)
        function = self.compiled(problem, torch_chunk_gated_delta_rule)

        def call():
            o, _ = function(
                q, k, v, g=decay, beta=beta, chunk_size=CHUNK, initial_state=None, output_final_state=False,
                use_qk_l2norm_in_kernel=True,
            )
            return o.transpose(1, 2)

        return call, f"chunks of {CHUNK}, transformers {transformers.__version__}"
