"""The commands besides ``bench`` and the gate: ``fool``, ``crop``, ``predict``, ``transfer`` and others."""
