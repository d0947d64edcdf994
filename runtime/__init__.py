"""From a video file to its sound: reading, preparing, sampling, writing, and the command line."""
