"""Compiled code: vector intrinsics, packing, micro-kernels and the one parallel driver.

Kernels are serial C callbacks that work on addresses. They neither allocate, nor validate, nor read
configuration: everything arrives in a block of 64-bit integers laid out by the module that owns the kernel.
"""
