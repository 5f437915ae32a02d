"""Where the trainer's and the evaluation's processes run, and how they talk to the step that started them.

launcher.py    what every launcher takes and gives
local.py       children of the step, alone or under torchrun
detached/      jobs that outlive their steps, on an engine
ray/           Ray as such an engine
kubernetes/    Kubernetes as such an engine
child.py       the job's side, everywhere; work.py: the table of what it may do
"""
