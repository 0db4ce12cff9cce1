"""VIPA (Cho et al., arXiv 2602.14788)."""
