"""TensorRT: plans built from a bundle's graphs on the board that runs them.

Not yet run on hardware. Written against the names that TensorRT's Python bindings 10.3, 10.7,
10.13, 10.16 and 11.4 share (tests/engines/tensorrt-names).
"""
