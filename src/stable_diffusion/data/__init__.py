"""What training and evaluation share: the pictures of a data pack, and how alike two pictures are.

pack.py         a data pack, read without copying it into memory
similarity.py   PSNR, SSIM and the overlap of outlines
"""
