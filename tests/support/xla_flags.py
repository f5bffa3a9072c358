"""Flags for programs that compile more with JAX than they run."""

# The compiler's passes stay, but for those of LLVM: a third of the time.
QUICK = "--xla_backend_optimization_level=0"
