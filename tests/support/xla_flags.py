"""Flags for programs that compile more with JAX than they run."""

# The compiler's passes stay, but for those of LLVM: a third of the time. And
# what fuses loops is the older of two, which takes a quarter of what is left.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
