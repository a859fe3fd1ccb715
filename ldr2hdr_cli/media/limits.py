"""What is refused before it is decoded, unless the user allows more."""

MAX_PIXELS = 2**28  # of a picture, or of a frame
MAX_FRAMES = 2**20  # of a clip
