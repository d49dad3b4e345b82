"""Attacks of other libraries: ART, foolbox, torchattacks."""
