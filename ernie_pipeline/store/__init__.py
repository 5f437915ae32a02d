"""What is kept on the disk, and that it stays what it was.

sealed.py           a folder that says itself what it holds, written in one step
artifacts.py        what the stages wrote, by their fingerprints: sealed folders
history.py          what was ever built
lock.py             one builder per fingerprint at a time
pins.py             what the steps of one run agree on
quantized_base.py   base models in 4 bits: sealed folders too
housekeeping/       what is in the store and what for, verified and removed
hashing/            the SHA-256 of files, remembered while they are not touched
user_cache.py       what processes of a user remember between them, and may lose
"""
