"""Methods: one package or module per family; each registers itself and carries its own card."""
