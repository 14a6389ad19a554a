"""rails #18741, sidekiq-cron #274, shoryuken #961: an ActiveJob that is called with keyword arguments.

`ExtractJob.perform_later(42, language: "de")`: ActiveJob marks the hash with
`_aj_ruby2_keywords`.  The parameter `language` of the actor must be "de", or
the job must be refused by name; it must not be a dict without a word.
"""

import json
import os
import sys
import time

import dramatiq
import redis

from dramatiq_sidekiq_flow import SidekiqBroker, WorkflowMiddleware

URL = os.environ["REDIS_URL"]
client = redis.Redis.from_url(URL)
client.flushdb()
broker = SidekiqBroker(url=URL)
broker.add_middleware(WorkflowMiddleware())
dramatiq.set_broker(broker)
got = []


@dramatiq.actor(queue_name="python", actor_name="ExtractJob")
def extract(doc_id, language="en", options=None):
    got.append({"doc_id": doc_id, "language": language, "options": options})


def active_job(*arguments):
    client.lpush(
        "queue:python",
        json.dumps(
            {
                "class": "Sidekiq::ActiveJob::Wrapper",
                "wrapped": "ExtractJob",
                "queue": "python",
                "retry": True,
                "jid": os.urandom(12).hex(),
                "created_at": int(time.time() * 1000),
                "enqueued_at": int(time.time() * 1000),
                "args": [
                    {
                        "job_class": "ExtractJob",
                        "job_id": "4ae3ab48-4b0c-4f3c-8d3c-111111111111",
                        "provider_job_id": None,
                        "queue_name": "python",
                        "priority": None,
                        "arguments": list(arguments),
                        "executions": 0,
                        "exception_executions": {},
                        "locale": "en",
                        "timezone": "UTC",
                        "enqueued_at": "2026-11-25T00:00:00Z",
                        "scheduled_at": None,
                    }
                ],
            }
        ),
    )


active_job(1, {"plain": "hash", "_aj_symbol_keys": ["plain"]})  # perform_later(1, {plain: "hash"}): a hash is a hash
active_job(42, {"language": "de", "_aj_ruby2_keywords": ["language"]})  # perform_later(42, language: "de")
worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=100)
worker.start()
time.sleep(3)
worker.stop()
broker.close()
print("called with:", got, "| dead:", [json.loads(m).get("error_class") for m, _ in client.zscan("dead")[1]])
keyword = [call for call in got if call["doc_id"] == 42]
refused = [json.loads(m) for m, _ in client.zscan("dead")[1]]
if not any(call["doc_id"] == 1 for call in got) or (
    not keyword and not any('"language"' in json.dumps(job) and job.get("error_class") for job in refused)
):
    print("FAIL: neither called nor refused by name")
    sys.exit(1)
if keyword and keyword[0]["language"] != "de":
    print(f'FAIL: language={keyword[0]["language"]!r}, where Ruby\'s perform gets language="de"')
    sys.exit(1)
print("PASS")
