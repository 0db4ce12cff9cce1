"""DETRIS: densely connected adapters in frozen DINOv2 and CLIP encoders (Huang et al., AAAI 2025)."""
