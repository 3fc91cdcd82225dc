"""Other packages' convolutions in a process of their own, for
benchmarks/sparse_conv.py: torch and TensorFlow do not share one.

Reads commands as lines of JSON, answers with one line each. Needs torch, and
for their rows sparseprop and scipy; no TensorFlow.
"""

import importlib.util
import json
import sys
import time

import numpy as np


def _torch_dense(w, layer):
    import torch

    conv = torch.nn.Conv2d(
        layer["channels"],
        layer["filters"],
        layer["kernel"],
        layer["stride"],
        layer["kernel"] // 2,
        groups=layer["groups"],
        bias=False,
    )
    kernel = np.ascontiguousarray(w.transpose(3, 2, 0, 1))
    conv.weight.data = torch.from_numpy(kernel)
    return conv.to(memory_format=torch.channels_last)


def make(name, w, batch, layer):
    """A function that runs one pass, and one that runs forward and backward."""
    import torch

    shape = (batch, layer["channels"], layer["size"], layer["size"])
    x = torch.randn(shape)
    if name == "torch":
        conv = _torch_dense(w, layer)
        x = x.to(memory_format=torch.channels_last)
    elif name == "scipy":
        import scipy.sparse

        matrix = scipy.sparse.csr_matrix(w.reshape(-1, w.shape[3]).T)
        pixels = np.random.default_rng(0).standard_normal(
            (layer["channels"], batch * layer["size"] ** 2), np.float32
        )
        return (lambda: matrix @ pixels), None
    else:
        from sparseprop.modules import SparseConv2d

        dense = _torch_dense(w, layer).to(memory_format=torch.contiguous_format)
        conv = SparseConv2d.from_dense(dense, name == "sparseprop_width")

    def forward():
        with torch.no_grad():
            conv(x)

    x_grad = x.clone().requires_grad_()
    y_grad = torch.randn_like(conv(x_grad))

    def both():
        conv(x_grad).backward(y_grad)

    return forward, both


def main():
    threads = int(sys.argv[1])
    names = []
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        names.append("torch")
        if importlib.util.find_spec("sparseprop"):
            names += ["sparseprop", "sparseprop_width"]
    if importlib.util.find_spec("scipy"):
        names.append("scipy")
    print(json.dumps(names), flush=True)
    made = {}
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "make":
            w = np.load(command["kernel"])
            made[command["name"]] = make(
                command["name"], w, command["batch"], command["layer"]
            )
            answer = 0
        else:
            run = made[command["name"]][command["do"] == "both"]
            start = time.perf_counter()
            run()
            answer = 1e3 * (time.perf_counter() - start)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
