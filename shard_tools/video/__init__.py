"""Video files to frames, shots and key-frames, with shot detectors or your own shot list.

    file  ->  frames  ->  detectors, or shot_list  ->  shots (with key-frames)  ->  keyframes (files)
Read `frames` first. `clips` turns a video into frames at a constant rate.
Imports annotations and storage; needs PyAV, and PySceneDetect for shots.
"""
