"""What makes data and people trustworthy: one form of JSON to sign and to compare."""
