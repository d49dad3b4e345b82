"""Benchmarks: plan, run, records, tables."""
