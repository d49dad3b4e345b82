"""The codes that records carry, and their texts: statuses, reasons of the trust checks, verdicts."""
