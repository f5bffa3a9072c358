"""Pure functions behind the layers: arrays in, arrays out."""
