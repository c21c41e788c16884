"""Write the graph of the packaged EfficientNet-Lite0, without its weights: src/dolglab/sharing/efficientnet_lite0.onnx.

    PYTHONPATH=src python experiments/offline_backbone/make_graph.py

Its tensors refer to positions in the weights' file of the package, which torch wrote before 2020: one tensor after
another as in memory, kernels with height and width first. onnxruntime reads that file together with the graph, so a
search needs neither torch nor an export. tests/sharing/test_graphs.py compares it with the network.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import optimizer

from dolglab.models.locate import locate
from dolglab.sharing.loading import GRAPHS
from dolglab.sharing.networks import LITE0_WEIGHTS, load_network
from dolglab.sharing.onnx_export import ExportableNetwork, export_program, onnx_metadata

# Smaller tensors stay in the graph, because a few numbers could match anywhere in the file.
SMALLEST = 64
# The transposition from the file's kernels to those of ONNX.
KERNEL = (3, 2, 0, 1)


def main(path: Path) -> None:
    """Export the network with its batch norms, and replace its tensors by references into the file."""
    network, weights = load_network("efficientnet_lite0"), locate(LITE0_WEIGHTS)
    data = weights.read_bytes()
    program = export_program(ExportableNetwork(network, fold=False), optimize=False)
    # Without torch's own optimisation, which folds batch norms into kernels.
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    program.model.metadata_props.update(
        onnx_metadata(network, normalised=False) | {"weights": hashlib.sha256(data).hexdigest()}
    )
    model = program.model_proto
    graph = model.graph
    transposed: list[onnx.NodeProto] = []
    tensors = [outside(tensor, data, weights.name, transposed) for tensor in graph.initializer]
    nodes = [*transposed, *graph.node]
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
    for field in ("initializer", "node", "value_info"):
        graph.ClearField(field)
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    onnx.save(model, path)
    left = sum(tensor.data_location != TensorProto.EXTERNAL for tensor in tensors)
    print(f"{path}: {path.stat().st_size} bytes, {len(tensors) - left} tensors outside, {left} small ones inside")


def outside(tensor: TensorProto, data: bytes, file: str, transposed: list[onnx.NodeProto]) -> TensorProto:
    """The tensor as a reference into `file`, which contains `data`; for a kernel, with a node added to `transposed`."""
    values = numpy_helper.to_array(tensor)
    kernel = values.ndim == len(KERNEL)
    stored = np.ascontiguousarray(values.transpose(np.argsort(KERNEL)) if kernel else values)
    place = data.find(stored.tobytes()) if stored.nbytes >= SMALLEST else -1
    if place < 0:
        return tensor
    found = TensorProto(name=f"{tensor.name}{'.hwio' * kernel}", data_type=tensor.data_type, dims=stored.shape)
    found.data_location = TensorProto.EXTERNAL
    for key, value in {"location": file, "offset": place, "length": stored.nbytes}.items():
        found.external_data.add(key=key, value=str(value))
    if kernel:
        transposed.append(helper.make_node("Transpose", [found.name], [tensor.name], perm=KERNEL))
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    main(GRAPHS["efficientnet_lite0"])
