"""What every room of the package needs, once."""
