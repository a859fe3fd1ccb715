"""What is read and written: pictures, clips, EXR, Radiance."""
