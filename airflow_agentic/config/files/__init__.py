"""Project files as trees in which every value knows its line: YAML and TOML, with every fault in them."""
