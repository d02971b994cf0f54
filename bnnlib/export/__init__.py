"""Packed networks for other places: a C file, a script for a web page, an ONNX file.

All three hold the same integers (`bnnlib.export.network`) and compute the same bits and scores as
`bnnlib.packed`. On the command line: python -m bnnlib.export MODEL --c
"""
