"""Evidence for people's eyes, made from a finished run: galleries of adversarial images, saliency maps."""
