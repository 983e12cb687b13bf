"""How loops become fast on a processor described by numbers; no operator, no target."""
