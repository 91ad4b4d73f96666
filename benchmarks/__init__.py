"""Benchmarks: the workload table, adapters to other libraries, a side-by-side comparison, an asv suite."""
