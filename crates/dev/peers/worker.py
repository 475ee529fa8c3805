"""A Python peer behind the line protocol of `cargo xtask bench` (docs/measuring.md).

    worker.py NAME --threads T [--libraries FOLDER]

A peer is a class with a `version` and `setup(problem)`, which gives a call that computes once and a call that gives the
output as f32 [sequence, head, query, channel], and a note on what runs. Where calls change what the next one does, the first has
an attribute `fresh`, a call that undoes it, untimed.
"""

import argparse
import importlib
import math
import os
import sys
import time

import numpy as np

from problem import Problem

PEERS = {
    "torch-sdpa": ("torch_peers", "Sdpa"),
    "torch-flex": ("torch_peers", "Flex"),
    "torch-chunks": ("chunk_peer", "Chunks"),
    "vllm": ("vllm_peer", "Vllm"),
    "onnxruntime": ("onnxruntime_peer", "OnnxRuntime"),
    "openvino": ("openvino_peer", "OpenVino"),
}

# A call that takes longer than this is not repeated to warm up.
SLOW_SECONDS = 0.5


class Slot:
    """What was set up, and how long a call takes."""

    def __init__(self, call, output):
        self.call, self.output = call, output
        self.seconds = self.timed(1)
        if self.seconds < SLOW_SECONDS:
            self.seconds = self.timed(2)

    def timed(self, calls):
        if hasattr(self.call, "fresh"):
            self.call.fresh()
        start = time.perf_counter()
        for _ in range(calls):
            self.call()
        return (time.perf_counter() - start) / calls

    def run(self, seconds):
        """Seconds of a call, over as many calls as take `seconds` together, and their number."""
        if self.seconds < seconds:
            # What ran in between has taken the caches.
            self.seconds = self.timed(1)
        calls = max(1, math.ceil(seconds / max(self.seconds, 1e-7)))
        self.seconds = self.timed(calls)
        return self.seconds, calls


class Worker:
    def __init__(self, peer):
        self.peer, self.slots = peer, {}

    def answer(self, verb, fields):
        if verb == "setup":
            call, output, note = self.peer.setup(Problem.of(fields))
            self.slots[fields["slot"]] = Slot(call, output)
            return f"ok\tnote={note}" if note else "ok"
        if verb == "run":
            seconds, calls = self.slots[fields["slot"]].run(float(fields["seconds"]))
            return f"time\tseconds={seconds:e}\tcalls={calls}"
        if verb == "output":
            output = self.slots[fields["slot"]].output()
            np.ascontiguousarray(output, np.float32).tofile(fields["path"])
            return "ok"
        if verb == "free":
            self.slots.pop(fields["slot"], None)
            return "ok"
        raise ValueError(f"found the verb {verb!r}, expected setup, run, output or free")


def one_line(error):
    text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--libraries")
    args = parser.parse_args()
    # Libraries print where they like: what is said to stdout goes to the log, answers go where stdout was.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line):
        answers.write(line + "\n")
        answers.flush()

    module, name = PEERS[args.name]
    try:
        peer = getattr(importlib.import_module(module), name)(args.threads, args.libraries)
    except Exception as error:
        say(f"err\tmessage={one_line(error)}")
        return
    say(f"ready\tversion={peer.version}")
    worker = Worker(peer)
    for line in sys.stdin:
        verb, *fields = line.rstrip("\n").split("\t")
        try:
            say(worker.answer(verb, dict(field.split("=", 1) for field in fields)))
        except Exception as error:
            say(f"err\tmessage={one_line(error)}")


if __name__ == "__main__":
    main()
