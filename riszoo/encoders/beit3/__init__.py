"""BEiT-3, a vision-language transformer with one expert for each modality (Wang et al., CVPR 2023)."""
