"""TaskFlow forms of the operators."""
