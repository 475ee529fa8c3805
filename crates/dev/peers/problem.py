"""A workload as `cargo xtask bench` describes it, with its tensors."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Problem:
    """One sequence whose queries are its keys, arrays [head, token, channel]; or the last token of each of `batch` sequences,
    whose keys and values are cached, arrays [sequence, head, token, channel]. Of latents there is one sequence.
    """

    way: str
    dtype: str
    heads: int
    kv_heads: int
    dim: int
    # Channels of a latent, and of keys and values that are made of it; zero where keys and values are given.
    rank: int
    nope: int
    value: int
    tokens: int
    decodes: bool
    batch: int
    causal: bool
    window: int
    softcap: float
    alibi: bool
    documents: tuple
    # What takes the place of softmax: "sum", "gated-delta" or nothing.
    recurrence: str
    folder: Path = field(repr=False)

    @staticmethod
    def of(fields):
        """From the fields of a setup request."""
        lengths = fields.get("documents", "")
        return Problem(
            way=fields["way"],
            dtype=fields["dtype"],
            heads=int(fields["heads"]),
            kv_heads=int(fields["kv_heads"]),
            dim=int(fields["dim"]),
            rank=int(fields.get("rank", 0)),
            nope=int(fields.get("nope", 0)),
            value=int(fields.get("value", 0)),
            tokens=int(fields["tokens"]),
            decodes=fields.get("phase") == "decode",
            batch=int(fields.get("batch", 1)),
            causal=fields.get("causal") == "1",
            window=int(fields.get("window", 0)),
            softcap=float(fields.get("softcap", 0)),
            alibi=fields.get("alibi") == "1",
            documents=tuple(int(n) for n in lengths.split(",") if n),
            recurrence=fields.get("recurrence", ""),
            folder=Path(fields["dir"]),
        )

    @property
    def group(self):
        """Query heads that share a head of keys and values."""
        return self.heads // self.kv_heads

    @property
    def scale(self):
        return self.dim**-0.5

    @property
    def is_plain(self):
        """Whether the mask is none or causal, and scores are left as they are."""
        return not (self.window or self.softcap or self.alibi or self.documents)

    def tensors(self):
        """q, k and v as f32."""
        queries = 1 if self.decodes else self.tokens
        outer = [self.batch] if self.decodes else []
        shapes = {"q": (self.heads, queries), "k": (self.kv_heads, self.tokens), "v": (self.kv_heads, self.tokens)}
        return [
            np.fromfile(self.folder / f"{name}.f32", np.float32).reshape(*outer, *shape, self.dim)
            for name, shape in shapes.items()
        ]

    def latents(self):
        """q_nope, q_rope, c_kv, k_rope, w_uk and w_uv as f32."""
        queries, rope = 1 if self.decodes else self.tokens, self.dim - self.nope
        shapes = {
            "q_nope": (self.heads, queries, self.nope),
            "q_rope": (self.heads, queries, rope),
            "c_kv": (self.tokens, self.rank),
            "k_rope": (self.tokens, rope),
            "w_uk": (self.heads, self.nope, self.rank),
            "w_uv": (self.heads, self.value, self.rank),
        }
        return [
            np.fromfile(self.folder / f"{name}.f32", np.float32).reshape(shape) for name, shape in shapes.items()
        ]

    def gates(self):
        """Log decays and strengths of a gated delta rule, [head, token]."""
        return [
            np.fromfile(self.folder / f"{name}.f32", np.float32).reshape(self.heads, self.tokens)
            for name in ("decay", "beta")
        ]

    def document_of(self):
        """The document of each token."""
        return np.repeat(np.arange(len(self.documents)), self.documents)

    def slopes(self):
        """What each head discounts a step of distance by."""
        return 2.0 ** (-8.0 * np.arange(1, self.heads + 1) / self.heads)

    def allowed(self):
        """[query, key]: whether the mask allows the pair."""
        query, key = np.arange(self.tokens)[:, None], np.arange(self.tokens)[None]
        allowed = np.ones((self.tokens, self.tokens), bool)
        if self.causal:
            allowed &= key <= query
        if self.window:
            allowed &= key > query - self.window
        if self.documents:
            document = self.document_of()
            allowed &= document[:, None] == document[None]
        return allowed

    def bias(self):
        """[1 or head, query, key] to be added to scores, or None where the mask is none or causal and there is no slope."""
        if not (self.window or self.documents or self.alibi):
            return None
        bias = np.where(self.allowed(), np.float32(0), np.float32(-np.inf))[None]
        if self.alibi:
            distance = np.arange(self.tokens)[:, None] - np.arange(self.tokens)[None]
            bias = bias - (self.slopes()[:, None, None] * distance).astype(np.float32)
        return np.ascontiguousarray(bias, dtype=np.float32)
