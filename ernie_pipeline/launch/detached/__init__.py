"""Jobs that outlive the step that starts them, on whatever engine runs them.

place.py       the job's folder: what step and job know of each other
life.py        the job's side: its heartbeat, its end when it is asked or superseded, its sealed folder
messages.py    the job's messages, read from their first one by any step that follows it
engine.py      what an engine (Ray, Kubernetes, Modal) must be able to do
followed.py    one job, followed by a step
launcher.py    the launcher: finds a job again or submits it, follows it, takes over what it sealed
"""
