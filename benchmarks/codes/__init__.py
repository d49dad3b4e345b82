"""The codes that records hold, and their texts: statuses, reasons of the trust checks, verdicts."""
