"""`ldr2hdr view`: a page to look through a finished job with."""
