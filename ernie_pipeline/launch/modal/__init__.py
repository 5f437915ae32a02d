"""Jobs on Modal, whose containers share no disk with the step: all that the two know of each other is in the bucket.

keys.py       where in the bucket: below `jobs/<stage>-<fingerprint>/<job>/`
engine.py     the step's side: Modal as an engine
place.py      the step's side: the job's folder, kept like what the container wrote
call.py       the job on its way: paths that mean something on both sides, and which code it is for
container.py  the function's body: inputs fetched, the child of every launcher started
carrying.py   the function's courier: what the child writes goes to the bucket, what the step asks comes back
heartbeat.py  who is at work, of several starts of the function
stream.py     messages as objects, from there to here

Modal itself is imported only where it is chosen, and never in a container's own work.
"""
