"""OpenVINO: a model of one ScaledDotProductAttention. Tensors go in and out as f32; inside, the asked type is a hint."""

import numpy as np
import openvino
from openvino import opset13 as op

PLUMBING = {"Input", "Output", "Const", "Result", "Parameter", "Constant", "Reorder"}


class OpenVino:
    """Way: `sdpa`."""

    def __init__(self, threads, _libraries):
        self.version, self.threads = openvino.__version__.split("-")[0], threads
        self.core = openvino.Core()

    def setup(self, problem):
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
        compiled = self.core.compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": problem.dtype,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        })
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
        return ", ".join(sorted(found))[:120]
