"""RISAM and MARIS (Zhang et al., arXiv 2311.15727)."""
