"""What the papers claim, the rules that judge it, and the verdicts."""
