"""OpenVINO: a model of one ScaledDotProductAttention. Tensors go in and out as f32; inside, the asked type is a hint.

Where keys and values are cached, it is the stateful model of exported language models, which appends a token at every call.
"""

import numpy as np
import openvino
from openvino import PartialShape, Type, opset13 as op
from openvino.op.util import Variable, VariableInfo

PLUMBING = {"Input", "Output", "Const", "Result", "Parameter", "Constant", "Reorder"}


class OpenVino:
    """Ways: `sdpa`; `stateful` with a cache, and `stateful-u8` with one of 8 bits."""

    def __init__(self, threads, _libraries):
        self.version, self.threads = openvino.__version__.split("-")[0], threads
        self.core = openvino.Core()

    def setup(self, problem):
        if problem.decodes:
            return self.decode(problem)
        q, k, v = (x[None] for x in problem.tensors())
        inputs = [op.parameter(list(x.shape), np.float32, name=name) for name, x in zip("qkv", (q, k, v))]
        keys, values = (self.repeated(problem, node) for node in inputs[1:])
        bias, feeds = problem.bias(), [q, k, v]
        if bias is None:
            mask = op.constant(np.zeros((), np.float32))
        else:
            mask = op.parameter([1, *bias.shape], np.float32, name="bias")
            inputs.append(mask)
            feeds.append(bias[None])
        scale = op.constant(np.float32(problem.scale))
        causal = problem.causal and bias is None
        o = op.scaled_dot_product_attention(inputs[0], keys, values, mask, scale, causal=causal)
        model = openvino.Model([op.result(o)], inputs)
        compiled = self.core.compile_model(model, "CPU", self.settings(problem))
        request = compiled.create_infer_request()
        held = [openvino.Tensor(np.ascontiguousarray(x)) for x in feeds]
        for index, tensor in enumerate(held):
            request.set_input_tensor(index, tensor)

        # What is set must outlive the request.
        def call(_held=held):
            request.infer()

        def output():
            call()
            return request.get_output_tensor(0).data[0].copy()

        return call, output, self.kinds(compiled)

    def settings(self, problem):
        return {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": problem.dtype,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }

    def decode(self, problem):
        """One token of each sequence, after which the cache has as many as the problem says."""
        q, k, v = problem.tensors()
        cached = "u8" if problem.way == "stateful-u8" else problem.dtype
        compiled = self.core.compile_model(
            self.stateful(problem), "CPU", {**self.settings(problem), "KV_CACHE_PRECISION": cached}
        )
        request = compiled.create_infer_request()
        order = np.arange(problem.batch, dtype=np.int32)
        nothing = np.zeros((problem.batch, 1, 1, problem.tokens + problem.tokens // 8 + 4096), np.float32)
        # The first call makes the state, which is then set as a whole.
        first = [np.ascontiguousarray(x[:, :, :1]) for x in (k, v)]
        request.infer({0: q, 1: first[0], 2: first[1], 3: order, 4: nothing[..., :1]})
        last = [openvino.Tensor(np.ascontiguousarray(x)) for x in (q, k[:, :, -1:], v[:, :, -1:])]
        for index, tensor in enumerate([*last, openvino.Tensor(order)]):
            request.set_input_tensor(index, tensor)
        before = {name: openvino.Tensor(np.ascontiguousarray(x[:, :, :-1])) for name, x in (("k", k), ("v", v))}
        length = 0

        def restore():
            nonlocal length
            for state in request.query_state():
                state.state = before[state.name]
            length = problem.tokens - 1

        # What is set must outlive the request.
        def call(_held=last):
            nonlocal length
            length += 1
            mask = openvino.Tensor(np.ascontiguousarray(nothing[..., :length]))
            request.set_input_tensor(4, mask)
            request.infer()

        def fresh():
            if length >= problem.tokens + problem.tokens // 64:
                restore()

        def output():
            restore()
            call()
            return request.get_output_tensor(0).data.copy()

        restore()
        call.fresh = fresh
        return call, output, f"cache {cached}, appends a token, {self.kinds(compiled)}"

    @staticmethod
    def stateful(problem):
        some, dim = -1, problem.dim
        rows = lambda heads: PartialShape([some, heads, some, dim])
        q = op.parameter(rows(problem.heads), Type.f32, name="q")
        k, v = (op.parameter(rows(problem.kv_heads), Type.f32, name=name) for name in "kv")
        order = op.parameter(PartialShape([some]), Type.i32, name="beam_idx")
        mask = op.parameter(PartialShape([some, 1, some, some]), Type.f32, name="mask")
        zero = op.constant(np.int64(0))
        axis = lambda shape, index: op.gather(shape, op.constant(np.array([index], np.int64)), zero)
        kept = []

        def state(name, current):
            about = VariableInfo()
            about.data_shape, about.data_type, about.variable_id = rows(problem.kv_heads), Type.f32, name
            variable = Variable(about)
            empty = op.concat(
                [axis(op.shape_of(q, "i64"), 0), op.constant(np.array([problem.kv_heads, 0, dim], np.int64))], 0
            )
            past = op.read_value(op.broadcast(op.constant(np.float32(0)), empty), variable)
            all_tokens = op.concat([op.gather(past, order, zero), current], 2)
            kept.append(op.assign(all_tokens, variable))
            if problem.group == 1:
                return all_tokens.output(0)
            shape = op.shape_of(all_tokens, "i64")
            wide = op.concat(
                [axis(shape, 0), axis(shape, 1), op.constant(np.array([problem.group], np.int64)), axis(shape, 2),
                 axis(shape, 3)], 0
            )
            apart = op.unsqueeze(all_tokens, op.constant(np.int64(2)))
            repeated = op.broadcast(apart, wide, broadcast_spec="BIDIRECTIONAL")
            together = op.constant(np.array([0, problem.heads, -1, dim], np.int64))
            return op.reshape(repeated, together, True).output(0)

        keys, values = state("k", k), state("v", v)
        scale = op.constant(np.float32(problem.scale))
        o = op.scaled_dot_product_attention(q, keys, values, mask, scale, causal=False)
        return openvino.Model([op.result(o)], kept, [q, k, v, order, mask])

    @staticmethod
    def repeated(problem, node):
        """Heads of keys or values, repeated as exported models do."""
        if problem.group == 1:
            return node.output(0)
        n, d = problem.tokens, problem.dim
        apart = op.unsqueeze(node, op.constant(2))
        shape = op.constant([1, problem.kv_heads, problem.group, n, d])
        wide = op.broadcast(apart, shape, broadcast_spec="BIDIRECTIONAL")
        return op.reshape(wide, op.constant([1, problem.heads, n, d]), False).output(0)

    @staticmethod
    def kinds(compiled):
        """Which primitives the model became: a fused one, or the parts of one."""
        found = set()
        for node in compiled.get_runtime_model().get_ops():
            about = node.get_rt_info()
            kind = about["layerType"].astype(str) if "layerType" in about else node.get_type_name()
            primitive = about["primitiveType"].astype(str) if "primitiveType" in about else "?"
            if kind not in PLUMBING:
                found.add(f"{kind} {primitive}")
        return ", ".join(sorted(found, key=lambda kind: (not kind.startswith("Scaled"), kind)))[:120]
