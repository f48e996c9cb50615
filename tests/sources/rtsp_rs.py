"""RTSP by rtsp-rs (PyPI, over UDP alone), with H.264 by ffmpeg. Usage: PORT FPS, or --check."""

import io
import subprocess
import sys

import imageio_ffmpeg
import rtsp

DELIMITER = b"\x00\x00\x00\x01\x09"  # an access unit begins

if sys.argv[1] == "--check":
    sys.exit()

port, fps = sys.argv[1:]
server = rtsp.Server(f"127.0.0.1:{port}")
server.start()
command = (
    f"-loglevel quiet -re -f lavfi -i testsrc2=size=96x64:rate={fps} -c:v libx264"
    f" -preset ultrafast -tune zerolatency -g {fps} -bsf:v h264_metadata=aud=insert"
    " -flush_packets 1 -f h264 -"
)
coder = subprocess.Popen(
    [imageio_ffmpeg.get_ffmpeg_exe(), *command.split()], stdout=subprocess.PIPE
)
assert isinstance(coder.stdout, io.BufferedReader)
waiting = b""
while chunk := coder.stdout.read1():
    waiting += chunk
    while (end := waiting.find(DELIMITER, 1)) > 0:
        server.send_frame(waiting[:end], 90000 // int(fps))
        waiting = waiting[end:]
