"""Export to LiteRT and TensorFlow Serving: builtin operations only."""
