"""JSON Schemas of files that robust-tin writes."""
