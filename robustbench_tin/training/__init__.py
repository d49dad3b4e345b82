"""Training: one loop, what a defense may change about it, and the record it leaves."""
