"""The words of a model: counted, and cut to those that are used."""
