# SPDX-License-Identifier: Apache-2.0
"""ONNX into a Network. Strict: whatever is not understood is refused by the node's name.

ONNX images are channels first and its vectors are flattened from that; here they stay where the
client's row has them. So transposes, reshapes and flattens move nothing: a View says which axis of the
image each axis of an ONNX tensor is, and a dense layer's weights are permuted instead.
"""
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from overlay.network import Activation, Network, Op, Unmappable

IMAGE = (2, 0, 1)  # an ONNX image's axes, channels first, among (height, width, channels)


@dataclass
class View:
    """An ONNX tensor: a value, its axes after the batch as axes of the image, flattened or not."""

    value: str
    axes: tuple
    flat: bool = False


def read(model):
    """The Network of an ONNX model (bytes or ModelProto); Unmappable where it is none."""
    if isinstance(model, bytes):
        model = onnx.load_model_from_string(model)
    return Reader(model).network()


class Reader:
    def __init__(self, model):
        self.graph = model.graph
        self.constants = {i.name: numpy_helper.to_array(i) for i in self.graph.initializer}
        self.views, self.shapes, self.ops = {}, {}, []
        self.outputs = {}
        self.place = None

    def network(self):
        inputs = [i for i in self.graph.input if i.name not in self.constants]
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs)
            raise Unmappable(self.graph.name, f"the graph has {len(inputs)} inputs ({names}), not one")
        name = inputs[0].name
        self._input(inputs[0])
        for node in self.graph.node:
            self._node(node)
        for output in self.graph.output:
            view = self.views.get(output.name)
            if view is None:
                raise Unmappable(output.name, "it is an output that nothing computes")
            self.outputs[output.name] = view.value
        channels = self.shapes[name][2]
        return Network(name, name, self.place, np.ones(channels), np.zeros(channels), self.shapes,
                       self.ops, self.outputs)

    def _input(self, info):
        kind = info.type.tensor_type
        if kind.elem_type != onnx.TensorProto.FLOAT:
            raise Unmappable(info.name, "it is not float32")
        dims = kind.shape.dim[1:]
        for axis, dim in enumerate(dims, 1):
            if dim.dim_value <= 0:
                raise Unmappable(info.name, f'its dimension {axis} ("{dim.dim_param}") is dynamic; only '
                                 "the first, the batch, may be", "export the model with it fixed")
        dims = tuple(d.dim_value for d in dims)
        if len(dims) not in (1, 3):
            raise Unmappable(info.name, f"the input has {len(dims)} dimensions a row, not 1 or 3")
        image = dims if len(dims) == 3 else (1, 1, *dims)
        self.shapes[info.name] = image
        self.place = np.arange(np.prod(image)).reshape(image)
        self.views[info.name] = View(info.name, (0, 1, 2) if len(dims) == 3 else (2,))
        self.source = info.name

    def _node(self, node):
        name = node.name or node.output[0]
        if node.domain not in ("", "ai.onnx"):
            raise Unmappable(name, f"{node.op_type} is of domain {node.domain}, and only ONNX's own "
                             "operators are known", "export the model without that domain")
        handler = HANDLERS.get(node.op_type)
        if handler is None:
            known = ", ".join(sorted(HANDLERS))
            raise Unmappable(name, f"operator {node.op_type} is not one of the overlay's ({known})")
        if len(node.output) != 1:
            raise Unmappable(name, f"{node.op_type} has {len(node.output)} outputs, not one")
        self.name = name
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        handler(self, node, attributes)
        for left in attributes:
            raise Unmappable(name, f"{node.op_type} has attribute {left}, which is not known")

    # ---- what handlers use -----------------------------------------------------------------------

    def refuse(self, why):
        raise Unmappable(self.name, why)

    def view(self, node, i=0):
        if node.input[i] not in self.views:
            self.refuse(f'its input "{node.input[i]}" is a constant or computed by no node before it')
        return self.views[node.input[i]]

    def constant(self, node, i):
        if node.input[i] not in self.constants:
            self.refuse(f'its input "{node.input[i]}" must be a constant of the model')
        return self.constants[node.input[i]]

    def want(self, attributes, name, *allowed):
        """Takes an attribute that may be absent or one of the allowed values."""
        value = attributes.pop(name, allowed[0])
        value = value.decode() if isinstance(value, bytes) else value
        value = list(value) if isinstance(value, (list, tuple)) else value
        if value not in allowed:
            self.refuse(f"{name} is {value}, and only {' or '.join(map(str, allowed))} can be")
        return value

    def image(self, node, i=0):
        """The view of an input that must be an image, channels first."""
        view = self.view(node, i)
        if view.value == self.source and view.axes != IMAGE and len(view.axes) == 3 and not view.flat:
            self._relay(view)
            view = self.view(node, i)
        if view.flat or view.axes != IMAGE:
            self.refuse("its input is no image with channels first (batch, channels, height, width)")
        return view

    def _relay(self, view):
        """The client's row is laid out otherwise: let the input's conversion permute it."""
        if self.ops:
            self.refuse("the input's axes are used in two orders")
        order = (view.axes[1], view.axes[2], view.axes[0])
        back = {axis: k for k, axis in enumerate(order)}
        self.place = self.place.transpose(order)
        self.shapes[self.source] = self.place.shape
        for other in self.views.values():
            other.axes = tuple(back[a] for a in other.axes)

    def emit(self, node, kind, inputs, shape, axes, **rest):
        out = node.output[0]
        self.shapes[out] = shape
        self.views[out] = View(out, axes)
        self.ops.append(Op(kind, self.name, inputs, out, **rest))

    def window(self, node, attributes, kernel):
        """stride, pads and the output's height and width of a convolution or pooling."""
        self.want(attributes, "auto_pad", "NOTSET", "VALID")
        self.want(attributes, "dilations", [1, 1])
        strides = tuple(attributes.pop("strides", (1, 1)))
        pads = tuple(attributes.pop("pads", (0, 0, 0, 0)))
        if len(kernel) != 2 or len(strides) != 2 or len(pads) != 4:
            self.refuse(f"its kernel has {len(kernel)} dimensions, not two")
        if strides[0] != strides[1]:
            self.refuse(f"strides are {list(strides)}, and only equal ones can be")
        if min(pads) < 0 or min(strides) < 1 or any(pads[i] >= kernel[i % 2] for i in range(4)):
            self.refuse(f"pads {pads} and strides {strides} with a kernel of {tuple(kernel)} leave "
                        "windows outside the image")
        height, width, _ = self.shapes[self.view(node).value]
        out = tuple((n + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1
                    for i, n in enumerate((height, width)))
        if min(out) < 1:
            self.refuse(f"its kernel {tuple(kernel)} is larger than its input {height} × {width}")
        return strides[0], pads, out

    # ---- operators ---------------------------------------------------------------------------------

    def conv(self, node, attributes):
        view = self.image(node)
        weight = self.constant(node, 1).astype(np.float64)
        if self.want(attributes, "group", 1) != 1 or weight.ndim != 4:
            self.refuse("it is not a plain convolution of images")
        attributes.pop("kernel_shape", None)
        channels = self.shapes[view.value][2]
        if weight.shape[1] != channels:
            self.refuse(f"its weights take {weight.shape[1]} channels, its input has {channels}")
        bias = self.constant(node, 2) if len(node.input) > 2 and node.input[2] else np.zeros(len(weight))
        stride, pads, out = self.window(node, attributes, weight.shape[2:])
        self.emit(node, "conv", [view.value], (*out, len(weight)), IMAGE,
                  weight=weight.transpose(0, 2, 3, 1), bias=bias.astype(np.float64), stride=stride,
                  pads=pads)

    def gemm(self, node, attributes):
        view = self.view(node)
        self.want(attributes, "transA", 0)
        alpha, beta = attributes.pop("alpha", 1.0), attributes.pop("beta", 1.0)
        weight = self.constant(node, 1).astype(np.float64)
        weight = weight if attributes.pop("transB", 0) else weight.T
        units = len(weight)
        bias = self.constant(node, 2) if len(node.input) > 2 and node.input[2] else np.zeros(units)
        bias = np.broadcast_to(bias.astype(np.float64).reshape(-1), (units,)) * beta
        self._dense(node, view, weight * alpha, bias)

    def matmul(self, node, attributes):
        weight = self.constant(node, 1).astype(np.float64)
        if weight.ndim != 2:
            self.refuse("it is no product of a vector and a matrix")
        self._dense(node, self.view(node), weight.T, np.zeros(weight.shape[1]))

    def _dense(self, node, view, weight, bias):
        shape = self.shapes[view.value]
        if not view.flat and len(view.axes) != 1:
            self.refuse("its input is an image that nothing has flattened")
        axes = view.axes if view.flat else (0, 1, 2)
        if weight.shape[1] != np.prod(shape):
            self.refuse(f"its weights take {weight.shape[1]} values, its input has {np.prod(shape)}")
        weight = weight.reshape(-1, *(shape[a] for a in axes))
        weight = weight.transpose(0, *(1 + axes.index(a) for a in range(3)))
        self.emit(node, "conv", [view.value], (1, 1, len(weight)), (2,), weight=weight, bias=bias)

    def batch_norm(self, node, attributes):
        view = self.view(node)
        if view.flat or view.axes[0] != 2:
            view = self.image(node)
        scale, shift, mean, variance = (self.constant(node, i).astype(np.float64) for i in range(1, 5))
        epsilon = attributes.pop("epsilon", 1e-5)
        self.want(attributes, "training_mode", 0)
        attributes.pop("momentum", None)
        factor = scale / np.sqrt(variance + epsilon)
        self.emit(node, "affine", [view.value], self.shapes[view.value], view.axes, scale=factor,
                  shift=shift - mean * factor)

    def activation(self, node, attributes):
        if node.op_type == "LeakyRelu":
            act = Activation(slope=attributes.pop("alpha", 0.01))
            if not 0 <= act.slope <= 1:
                self.refuse(f"alpha is {act.slope}, and only 0 to 1 can be")
        elif node.op_type == "Relu":
            act = Activation(low=0.0)
        else:
            bounds = [float(self.constant(node, i)) if len(node.input) > i and node.input[i] else None
                      for i in (1, 2)]
            act = Activation(*(d if b is None else b for b, d in zip(bounds, (-np.inf, np.inf))))
        view = self.view(node)
        self.emit(node, "activate", [view.value], self.shapes[view.value], view.axes, act=act)
        self.views[node.output[0]].flat = view.flat

    def add(self, node, attributes):
        a, b = self.view(node, 0), self.view(node, 1)
        if (a.axes, a.flat) != (b.axes, b.flat) or self.shapes[a.value] != self.shapes[b.value]:
            self.refuse(f"its inputs differ in shape: {self.shapes[a.value]} and {self.shapes[b.value]}")
        if self.source in (a.value, b.value):
            self.refuse("it adds to the model's input itself")
        self.emit(node, "add", [a.value, b.value], self.shapes[a.value], a.axes)
        self.views[node.output[0]].flat = a.flat

    def max_pool(self, node, attributes):
        view = self.image(node)
        kernel = tuple(attributes.pop("kernel_shape"))
        self.want(attributes, "ceil_mode", 0)
        self.want(attributes, "storage_order", 0)
        stride, pads, out = self.window(node, attributes, kernel)
        self.emit(node, "max_pool", [view.value], (*out, self.shapes[view.value][2]), IMAGE,
                  kernel=kernel, stride=stride, pads=pads)

    def mean(self, node, attributes):
        view = self.image(node)
        self.emit(node, "mean", [view.value], (1, 1, self.shapes[view.value][2]), IMAGE)

    def resize(self, node, attributes):
        view = self.view(node)
        self.want(attributes, "mode", "nearest")
        self.want(attributes, "coordinate_transformation_mode", "asymmetric")
        self.want(attributes, "nearest_mode", "floor")
        attributes.pop("cubic_coeff_a", None)
        if len(node.input) < 3 or not node.input[2]:
            self.refuse("it gives sizes; only whole scales can be")
        if view.flat or len(view.axes) != 3:
            self.refuse("its input is no image")
        view = self.image(node)
        scales = self.constant(node, 2)
        whole = np.rint(scales).astype(int)
        if (whole != scales).any() or (whole < 1).any() or whole[0] != 1 or whole[1] != 1:
            self.refuse(f"scales are {scales.tolist()}; only whole factors of height and width can be")
        height, width, channels = self.shapes[view.value]
        factors = (int(whole[2]), int(whole[3]))
        self.emit(node, "upsample", [view.value], (height * factors[0], width * factors[1], channels),
                  IMAGE, factors=factors)

    def transpose(self, node, attributes):
        view = self.view(node)
        order = tuple(attributes.pop("perm", ()))
        if view.flat or order[:1] != (0,) or len(order) != len(view.axes) + 1:
            self.refuse(f"perm {order} moves the batch")
        self.views[node.output[0]] = replace(view, axes=tuple(view.axes[i - 1] for i in order[1:]))

    def flatten(self, node, attributes):
        self.want(attributes, "axis", 1)
        self._flat(node, self.view(node))

    def _flat(self, node, view):
        self.views[node.output[0]] = replace(view, flat=len(view.axes) > 1)

    def reshape(self, node, attributes):
        """To a vector, or only dimensions of 1 moved."""
        view = self.view(node)
        self.want(attributes, "allowzero", 0)
        shape = self.shapes[view.value]
        sizes = [shape[a] for a in view.axes]
        target = self.constant(node, 1).tolist()
        rest = [int(np.prod(sizes)) // max(1, int(np.prod(target[1:]))) if t == -1 else t
                for t in target[1:]]
        if target[:1] not in ([-1], [0]) or min(rest, default=0) < 1:
            self.refuse(f"shape {target} does not leave the batch alone")
        if rest == [int(np.prod(sizes))]:
            return self._flat(node, view)
        ones = [a for a in view.axes if shape[a] == 1]
        if view.flat or [n for n in rest if n > 1] != [n for n in sizes if n > 1] or \
                len(rest) != len(sizes):
            self.refuse(f"shape {target} of {sizes} moves more than dimensions of 1")
        others = [a for a in view.axes if shape[a] > 1]
        axes = tuple((ones if n == 1 else others).pop(0) for n in rest)
        self.views[node.output[0]] = replace(view, axes=axes)

    def identity(self, node, attributes):
        self.views[node.output[0]] = replace(self.view(node))

    def last(self, node, attributes):
        """Softmax and Sigmoid, which are known at the end only (fold.py looks after that)."""
        view = self.view(node)
        if node.op_type == "Softmax":
            self.want(attributes, "axis", -1, 1)
        shape = self.shapes[view.value]
        if shape[:2] != (1, 1) or len(view.axes) != 1:
            self.refuse("its input is not a dense layer's")
        self.emit(node, node.op_type.lower(), [view.value], shape, view.axes)


HANDLERS = {"Conv": Reader.conv, "Gemm": Reader.gemm, "MatMul": Reader.matmul,
            "BatchNormalization": Reader.batch_norm, "Relu": Reader.activation,
            "LeakyRelu": Reader.activation, "Clip": Reader.activation, "Add": Reader.add,
            "MaxPool": Reader.max_pool, "GlobalAveragePool": Reader.mean, "Resize": Reader.resize,
            "Transpose": Reader.transpose, "Flatten": Reader.flatten, "Reshape": Reader.reshape,
            "Identity": Reader.identity, "Softmax": Reader.last, "Sigmoid": Reader.last}
