"""Part of MoME; see the modules."""
