"""CGFormer, contrastive grouping with transformer (Tang et al., CVPR 2023)."""
