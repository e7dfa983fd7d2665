"""What one page shows of attacks and explanations together."""
