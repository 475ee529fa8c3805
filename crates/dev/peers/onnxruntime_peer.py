"""ONNX Runtime: its attention operators, each in a model of one node."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

TYPES = {"f32": (np.float32, TensorProto.FLOAT), "f16": (np.float16, TensorProto.FLOAT16)}


def by_token(x):
    """[head, token, channel] as [1, token, head · channel]."""
    return np.ascontiguousarray(x.transpose(1, 0, 2)).reshape(1, x.shape[1], -1)


class OnnxRuntime:
    """Ways: `mha` (MultiHeadAttention), `gqa` (GroupQueryAttention), `attention` (of ONNX itself)."""

    def __init__(self, threads, _libraries):
        self.version, self.threads = onnxruntime.__version__, threads

    def setup(self, problem):
        number, kind = TYPES[problem.dtype]
        tensors = [x.astype(number) for x in problem.tensors()]
        return getattr(self, problem.way)(problem, tensors, kind)

    def session(self, node, inputs, outputs, opset=17):
        def value(item):
            name, kind, *shape = item
            return helper.make_tensor_value_info(name, kind, shape[0] if shape else None)

        graph = helper.make_graph([node], "attention", list(map(value, inputs)), list(map(value, outputs)))
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 10
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def mha(self, problem, tensors, kind):
        bias = problem.bias()
        names = ["q", "k", "v"] + ([] if bias is None else ["", "", "bias"])
        node = helper.make_node(
            "MultiHeadAttention", names, ["o"], domain="com.microsoft", num_heads=problem.heads,
            scale=problem.scale, unidirectional=int(problem.causal and bias is None),
        )
        feed = dict(zip("qkv", map(by_token, tensors)))
        if bias is not None:
            feed["bias"] = bias[None].astype(tensors[0].dtype)
        session = self.session(node, [(name, kind) for name in feed], [("o", kind)])
        output = lambda: self.by_head(problem, session.run(None, feed)[0])
        return lambda: session.run(None, feed), output, "allocates its output"

    def gqa(self, problem, tensors, kind):
        q, k, v = map(by_token, tensors)
        attributes = dict(num_heads=problem.heads, kv_num_heads=problem.kv_heads, scale=problem.scale)
        if problem.window:
            attributes["local_window_size"] = problem.window
        if problem.softcap:
            attributes["softcap"] = problem.softcap
        names = ["q", "k", "v", "past_k", "past_v", "last", "total"]
        outputs = ["o", "now_k", "now_v"]
        node = helper.make_node("GroupQueryAttention", names, outputs, domain="com.microsoft", **attributes)
        shape = [1, problem.kv_heads, "tokens", problem.dim]
        caches = [(name, kind, shape) for name in ("past_k", "past_v")]
        ints = [(name, TensorProto.INT32) for name in ("last", "total")]
        session = self.session(
            node,
            [("q", kind), ("k", kind), ("v", kind), *caches, *ints],
            [("o", kind), ("now_k", kind, shape), ("now_v", kind, shape)],
        )
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        n, empty = problem.tokens, np.zeros((1, problem.kv_heads, problem.tokens, problem.dim), q.dtype)
        past_k, past_v, o = value(empty), value(empty.copy()), value(np.zeros_like(q))
        given = dict(
            q=value(q), k=value(k), v=value(v), past_k=past_k, past_v=past_v,
            last=value(np.array([n - 1], np.int32)), total=value(np.array([n], np.int32)),
        )
        binding = session.io_binding()
        for name, data in given.items():
            binding.bind_ortvalue_input(name, data)
        for name, data in (("o", o), ("now_k", past_k), ("now_v", past_v)):
            binding.bind_ortvalue_output(name, data)

        # What is bound must outlive the binding.
        def call(_given=given):
            session.run_with_iobinding(binding)

        def output():
            call()
            return self.by_head(problem, o.numpy())

        return call, output, "writes its cache"

    def attention(self, problem, tensors, kind):
        node = helper.make_node(
            "Attention", ["q", "k", "v"], ["o"], is_causal=int(problem.causal), scale=problem.scale
        )
        feed = {name: x[None] for name, x in zip("qkv", tensors)}
        inputs = [(name, kind, list(x.shape)) for name, x in feed.items()]
        session = self.session(node, inputs, [("o", kind, list(feed["q"].shape))], opset=23)
        return lambda: session.run(None, feed), lambda: session.run(None, feed)[0][0], "allocates its output"

    @staticmethod
    def by_head(problem, o):
        return o.reshape(problem.tokens, problem.heads, problem.dim).transpose(1, 0, 2)
