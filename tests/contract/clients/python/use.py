"""Uses the generated client as a program would; mypy checks it with the client."""
import os

from plinth_client import AuthenticatedClient
from plinth_client.api.topics import ensure_topic, view_topic
from plinth_client.models import Problem, Topic, TopicRequest

with AuthenticatedClient(base_url=os.environ["URL"], token=os.environ["KEY"]) as client:
    made = ensure_topic.sync("clients.python", client=client, body=TopicRequest())
    assert isinstance(made, Topic), made
    absent = view_topic.sync("clients.absent", client=client)
    assert isinstance(absent, Problem), absent
    print(made.name, absent.code)
