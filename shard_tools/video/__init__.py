"""Video files to frames, shots and key-frames, with shot detectors or your own shot list."""
