"""A small web app on the published package bottle: notes kept in shared/data."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "vendor"))
import bottle

HERE = os.path.dirname(os.path.abspath(__file__))
NOTES = os.path.join(HERE, "data", "notes")


@bottle.get("/")
def index():
    with open(NOTES, "a+") as notes:
        notes.seek(0)
        return {"bottle": bottle.__version__, "notes": notes.read().split("\n")}


@bottle.get("/healthz")
def health():
    if os.path.exists(os.path.join(HERE, "BROKEN")):
        bottle.abort(500, "this version is broken")
    return bottle.__version__


bottle.run(host="0.0.0.0", port=8080, quiet=True)
