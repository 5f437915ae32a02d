"""Jobs as pods of a Kubernetes cluster. Its client is imported only where it is chosen.

engine.py   what the launcher asks of an engine: submit, tell, stop; what is kept of the rest of Dagster's own client
pod.py      what a pod is made of, and its name
standing.py what the API says of a pod, as the launcher's `Status`
api.py      the few requests, and what an answer is
init.py     the first process of a pod's container
"""
