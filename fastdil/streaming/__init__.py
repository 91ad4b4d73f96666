"""Causal convolutions fed in chunks: one layer (`streams`), and stacks of them (`stacks`)."""

from fastdil.streaming.stacks import StreamBlock, StreamStack
from fastdil.streaming.streams import Stream

__all__ = ["Stream", "StreamBlock", "StreamStack"]
