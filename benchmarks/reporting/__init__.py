"""Tables and TensorBoard events, all rendered from records."""
