"""What encoders learn correspondence from: clips of unlabelled videos and one objective each."""
