"""CRIS, CLIP-Driven Referring Image Segmentation (Wang et al., CVPR 2022)."""
