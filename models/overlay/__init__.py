# SPDX-License-Identifier: Apache-2.0
"""Compiles an ONNX model for the overlay kernels (worker/kernels): bundle.pbtxt, overlay.cl, weights.bin.

reader.py (ONNX to a network) -> fold.py (batch norms and activations into their neighbours) ->
quantise.py or wide_quantise.py (to a plan in integers of 8 or 16 bits, on generated inputs) ->
launches.py (to kernels' arguments) -> memory.py (buffers) -> bundle.py (the files). integers.py and
wide.py compute a plan in numpy as every device must; report.py says what the integers cost.
"""
