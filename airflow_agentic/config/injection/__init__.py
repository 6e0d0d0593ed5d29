"""What is needed, and what provides it: read from signatures, resolved by name and type, built and closed in scopes."""
