"""The commands beside ``bench`` and the gate: ``fool``, ``crop``, ``predict``, ``transfer``."""
