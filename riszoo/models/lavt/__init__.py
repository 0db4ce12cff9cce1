"""LAVT, the Language-Aware Vision Transformer (Yang et al., CVPR 2022)."""
