"""Tables and TensorBoard events; all are rendered from records."""
