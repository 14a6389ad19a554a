"""dramatiq-workflow's names, on this package.

Its tests hand a mock to a workflow as its broker, and look at the messages
that are enqueued on it.  Here a workflow is planned as ever, and each job of
the plan is turned into the message that dramatiq-workflow would enqueue.
"""

from ._base import Workflow
from ._middleware import WorkflowMiddleware
from ._models import Chain, Group, WithDelay

__all__ = ["Chain", "Group", "WithDelay", "Workflow", "WorkflowMiddleware"]
