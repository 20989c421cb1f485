"""The experiments of Verma et al. (2019)."""
