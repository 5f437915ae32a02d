"""A home in a bucket (`s3://bucket/prefix`, `gs://...`, `az://...`): what several machines share, and how.

bucket.py       requests: conditional writes, retries, one clear sentence when they fail
records.py      small objects that say themselves whether they are whole
lease.py        who may build an artifact, across machines
publication.py  an artifact's files in the bucket, its record last
store.py        the artifact store over both: the bucket is the truth, the local folder a cache
carried.py      what a killed build leaves for the next one, on whichever machine: checkpoints and kept rows
history.py      one object for each build
pins.py         what the steps of a run agree on
settled.py      from the settings to the store: local, or in a bucket

Below the address: `store/<stage>/<fingerprint>/manifest.json` and `.../<build>/<file>`, `leases/`, `unfinished/`,
`rows/`, `builds/`, `runs/`. Nothing of it is ever renamed.
"""
