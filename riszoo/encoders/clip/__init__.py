"""CLIP: OpenAI's archives, its tokenizer, its text transformer, and its ResNets of other sizes."""
