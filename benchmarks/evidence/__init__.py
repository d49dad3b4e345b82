"""Visual evidence made from a finished run: galleries of adversarial images, saliency maps."""
