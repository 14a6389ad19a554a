"""django_dramatiq #80, #71: the tasks in Django's admin (AdminMiddleware).

django_dramatiq keeps a row for each message, whose id is the message's id in
a UUID column.  After a job and a chain of two have run there must be three
rows, all "done".  Needs django-dramatiq.
"""

import logging
import os
import sys
import time

URL = os.environ["REDIS_URL"]
import django
import redis
from django.conf import settings

database = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"case04-{os.getpid()}.sqlite3")
settings.configure(
    INSTALLED_APPS=["django_dramatiq"],
    # Two threads write: without IMMEDIATE, SQLite refuses one of them at once, on any broker.
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": database,
            "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 10},
        }
    },
    USE_TZ=True,
    DRAMATIQ_BROKER={
        "BROKER": "dramatiq_sidekiq_flow.SidekiqBroker",
        "OPTIONS": {"url": URL},
        "MIDDLEWARE": [
            "dramatiq.middleware.AgeLimit",
            "dramatiq.middleware.TimeLimit",
            "dramatiq.middleware.Callbacks",
            "dramatiq.middleware.Retries",
            "django_dramatiq.middleware.DbConnectionsMiddleware",
            "django_dramatiq.middleware.AdminMiddleware",
            "dramatiq_sidekiq_flow.WorkflowMiddleware",
        ],
    },
)
client = redis.Redis.from_url(URL)
client.flushdb()
said = []


class Hear(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.ERROR:
            said.append(record.getMessage()[:90] + " " + repr(record.exc_info and record.exc_info[1])[:120])


logging.getLogger().addHandler(Hear())
django.setup()
from django.core.management import call_command

call_command("migrate", verbosity=0)
import dramatiq
from django_dramatiq.models import Task

from dramatiq_sidekiq_flow import Chain, Workflow

ran = []


@dramatiq.actor(queue_name="python")
def note(x):
    ran.append(x)


note.send("job")
Workflow(Chain(note.message("first"), note.message("second"))).run()
broker = dramatiq.get_broker()
worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=100)
worker.start()
time.sleep(3)
worker.stop()
broker.close()
rows = list(Task.tasks.values_list("status", flat=True))
os.unlink(database)
print("ran:", ran, "| rows:", rows, "| errors logged:", len(said), said[:1])
if rows != ["done"] * 3:
    print("FAIL: the admin's table does not show what ran")
    sys.exit(1)
print("PASS")
