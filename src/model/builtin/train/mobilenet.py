"""Step 1: Coral's int8 MobileNetV2 (TFLite, Apache-2.0) to f32 arrays, WORK/mobilenet.npz, and to WORK/mobilenet.onnx.

The ONNX graph gives the map behind block 13 and the pooled features; ONNX Runtime extracts both several times as fast as
PyTorch on a CPU. Needs tflite, onnx, numpy.
"""
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tflite import Model

from data import arguments
from model import FEATURES, SPLIT, layer_list


def tensor(model, graph, index):
    """A quantised tensor as f32."""
    tensor = graph.Tensors(index)
    quantisation, dtype = tensor.Quantization(), {2: np.int32, 3: np.uint8, 9: np.int8}[tensor.Type()]
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
    numbers = np.frombuffer(raw, dtype).reshape(tensor.ShapeAsNumpy()).astype(np.float64)
    scale, zero = (a.astype(np.float64) for a in (quantisation.ScaleAsNumpy(), quantisation.ZeroPointAsNumpy()))
    if scale.size > 1:
        shape = [1] * numbers.ndim
        shape[quantisation.QuantizedDimension()] = scale.size
        scale = scale.reshape(shape)
        zero = zero.reshape(shape) if zero.size > 1 else zero
    return ((numbers - zero) * scale).astype(np.float32)


def load(path):
    """Weights by the names of model.layer_list, and the classifier: 1,001 outputs, the first is the background."""
    model = Model.GetRootAsModel(open(path, "rb").read(), 0)
    graph, convs = model.Subgraphs(0), []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = {3: "conv", 4: "dw"}.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if kind:
            weight, bias = (tensor(model, graph, operator.Inputs(n)) for n in (1, 2))
            convs.append((kind, weight.transpose((0, 3, 1, 2) if kind == "conv" else (3, 0, 1, 2)), bias))
    layers, arrays = layer_list(), {}
    assert len(convs) == len(layers) + 1, (len(convs), len(layers))
    for layer, (kind, weight, bias) in zip(layers, convs):
        assert kind == layer["kind"] and weight.shape[0] == layer["cout"], (layer, weight.shape)
        arrays[layer["name"] + ".weight"], arrays[layer["name"] + ".bias"] = np.ascontiguousarray(weight), bias
    arrays["classifier.weight"] = np.ascontiguousarray(convs[-1][1].reshape(1001, FEATURES))
    arrays["classifier.bias"] = convs[-1][2]
    return arrays


def build_onnx(arrays, path, outputs=("map", "pool"), size=224):
    """The trunk as an ONNX graph: x (n, 3, size, size) in -1..1 to the named outputs."""
    nodes = []
    constants = [numpy_helper.from_array(np.float32(x), name) for x, name in ((0, "zero"), (6, "six"))]
    x = block_input = "x"
    previous = None
    for layer in layer_list():
        name, block = layer["name"], layer["name"].split(".")[0]
        if block != previous:
            block_input, previous = x, block
        for part in (".weight", ".bias"):
            constants.append(numpy_helper.from_array(np.ascontiguousarray(arrays[name + part].astype(np.float32)), name + part))
        nodes.append(helper.make_node("Conv", [x, name + ".weight", name + ".bias"], [name], auto_pad="SAME_UPPER",
                                      kernel_shape=[layer["k"]] * 2, strides=[layer["stride"]] * 2,
                                      group=layer["cin"] if layer["kind"] == "dw" else 1))
        x = name
        if layer["relu6"]:
            nodes.append(helper.make_node("Clip", [x, "zero", "six"], [name + ".relu6"]))
            x = name + ".relu6"
        if layer.get("res"):
            nodes.append(helper.make_node("Add", [block_input, x], [name + ".sum"]))
            x = name + ".sum"
        if name == f"block{SPLIT - 1}.project" and "map" in outputs:
            nodes.append(helper.make_node("Identity", [x], ["map"]))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["average"]))
    nodes.append(helper.make_node("Flatten", ["average"], ["pool"]))
    shapes = {"map": ["n", 160, size // 32, size // 32], "pool": ["n", FEATURES], "x": ["n", 3, size, size]}
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
    graph = helper.make_graph(nodes, "mobilenet", [info("x")], [info(name) for name in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    args = arguments(__doc__).parse_args()
    os.makedirs(args.work, exist_ok=True)
    arrays = load(f"{args.data}/mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite")
    np.savez(f"{args.work}/mobilenet.npz", **arrays)
    build_onnx(arrays, f"{args.work}/mobilenet.onnx")
