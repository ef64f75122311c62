"""PyTorch and SpikingJelly as contestants: a process that answers one JSON request a line with one JSON line.

The suite starts it, so that rounds of both sides alternate within one run. Nothing but replies goes to standard output.
"""

import json
import os
import platform
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # What a library prints must not be taken for a reply.

import torch  # noqa: E402

import contestants  # noqa: E402
import memory  # noqa: E402
import steps  # noqa: E402
import training  # noqa: E402

prepared = {}


def hello(request):
    jelly, reason = contestants.spikingjelly()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "spikingjelly": jelly,
        "spikingjellyAbsent": reason,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def prepare(request):
    torch.set_num_threads(request["threads"])
    kinds = {"layer": contestants.create, "steps": steps.create, "training": training.create}
    made = kinds[request["kind"]](request)
    if isinstance(made, str):
        return {"absent": made}
    if request["kind"] != "training":
        made.round()  # What cannot run is found now, where it costs a cell, and not in the middle of the timing.
    prepared[request["key"]] = made
    return {"note": getattr(made, "note", None)}


def round_(request):
    return prepared[request["key"]].round()


def drop(request):
    prepared.pop(request["key"], None)
    contestants.free()
    return {}


ACTIONS = {"hello": hello, "prepare": prepare, "round": round_, "drop": drop, "memory": memory.measure}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = ACTIONS[request["do"]](request)
        except Exception as error:  # An operation PyTorch does not have must cost a cell, not the run.
            text = str(error).strip().splitlines()
            reply = {"absent": f"{type(error).__name__}: {text[0] if text else 'no message'}"[:200]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


main()
