"""What is kept on the disk, and that it stays what it was.

sealed.py           a folder that says itself what it holds, and holds nothing else (unlisted.py), written in one step
aside.py            what is not what it should be, renamed, and made anew
readable.py         reading what anyone may have altered
artifacts.py        what the stages wrote, by their fingerprints: sealed folders
manifest.py         the types of what a manifest says
history.py          what was ever built
lock.py             one builder per fingerprint at a time
pins.py             what the steps of one run agree on
quantized_base.py   base models in 4 bits: sealed folders too
shared/             the same in a bucket, for several machines
housekeeping/       what is in the store and what for, verified and removed
hashing/            the SHA-256 of files, remembered while they are not touched
user_cache.py       what processes of a user remember between them, and may lose
"""
