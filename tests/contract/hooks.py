"""What schemathesis cannot know of this API: bodies that are no JSON, what is in an event, and what is refused on purpose.

Nothing is switched off here: a finding of another kind than those in `DELIBERATE`, or with another error code, is one.
"""
import json
import os
import re
import urllib.request

import jsonschema_rs
import schemathesis
from hypothesis import strategies as st

NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
STORED = "application/vnd.plinth.batch"
BATCH = "application/vnd.plinth.batch+json"

# Valid requests that are refused all the same, because a schema cannot say why: the reason, the operations (all when
# there is none), the code, and what `detail` says.
DELIBERATE = [
    ("a cursor is made by the server, with a MAC; no schema describes those that it made", (), "invalid_cursor", ""),
    ("which parameters apply depends on `Accept`", ("read_records",), "unknown_field", "does not apply to an answer of"),
    ("a schema calls 1.0 an integer; here a number with a point is none", (), "invalid_request", "floating point"),
    ("the same where an untagged choice hides what was read", (), "invalid_request", "`bytes` must be a number of bytes"),
    ("a topic of several partitions has no one place before an offset", ("trim_records",), "invalid_request",
     "before an offset needs one partition"),
    ("the same for where to begin", ("read_records", "follow_topics"), "invalid_request", "needs one partition"),
    ("which class is too weak is up to the topic", ("publish_records",), "unprocessable", "is weaker than that of topic"),
    ("each topic has its own offsets", ("follow_topics",), "invalid_request", "from offset:N is for one topic only"),
    ("of three fields one", ("publish_records",), "unprocessable", "more than one of `value`, `text` and `base64`"),
    ("names of headers are the same in both cases", ("publish_records",), "unprocessable", "is given twice"),
    ("what was sent before with a key, only the log knows", ("publish_records",), "idempotency_key_reused", ""),
    ("a limit is in bytes, a schema counts characters", ("publish_records",), "too_large", "exceed"),
    ("two parameters come together", ("explain",), "invalid_request", "go together"),
    ("of three things one is revoked", ("revoke",), "unprocessable", "is given"),
    ("the same with the time, which is of a subject", ("revoke",), "unprocessable", "goes with `subject`"),
    ("a time before 1970 is none of a server's", ("revoke",), "unprocessable", "`issued_before` is not a time"),
    ("a subject stands in logs", ("mint_token",), "unprocessable", "without control characters"),
    ("what a template needs, the credential must have", ("mint_token",), "unprocessable", "cannot be given"),
    ("a time has an upper bound, and a pattern of it nobody could read", (), "unprocessable", "exceeds the limit of"),
    ("an issuer has keys or a secret that fit its algorithms", ("ensure_issuer",), "unprocessable", ""),
    ("how many partitions there are is up to the topic", (), "invalid_request", "partition"),
    ("what is a host, IDNA says and not a pattern", (), "unprocessable", "allowed origin"),
    ("the tail moves", (), "offset_above_tail", ""),
    ("the start moves", (), "offset_trimmed", ""),
    ("29 February is no day of most years", (), "invalid_request", "-02-29T"),
    ("a plain HTTP client cannot speak WebSocket", ("upgrade",), "invalid_request", "this path speaks WebSocket"),
    ("of two times one comes first", ("view_usage",), "invalid_request", "to is before from"),
    ("a key's quotas have the form of a tenant's, and what is kept belongs to no key", ("create_key", "change_key"),
     "unprocessable", "is a tenant's"),
    ("headers of a producer come together or not at all", ("publish_records", "append_to_stream"), "invalid_request", "come together"),
    ("a live reader says where it begins", ("read_stream",), "invalid_request", "`offset` is missing"),
    ("only a stream knows which offsets it has given", ("read_stream",), "invalid_request", "not one that this stream has given"),
    ("only the topic knows that it is a stream, and of what", ("publish_records",), "unprocessable", "is a stream of"),
    ("a time may be too short to be one", ("rotate_key",), "unprocessable", "is shorter than a millisecond"),
    ("a fork has a source, and its place is one of that", ("ensure_stream",), "invalid_request", "fork"),
    ("what a subscription has depends on its type", ("ensure_subscription",), "invalid_request", "a pull-wake the other way round"),
    ("a subscription is for something", ("ensure_subscription",), "invalid_request", "pattern"),
    ("which hosts are called is up to the operator", ("ensure_subscription",), "invalid_request", "webhook"),
    ("only a pull-wake is claimed", ("claim_wake",), "invalid_request", "wakes by webhook"),
    ("a time before 1970 is none of a stream's", ("ensure_stream",), "invalid_request", "RFC 3339, from 1970 on"),
    ("a stream ends by itself in one way", ("ensure_stream",), "invalid_request", "do not come together"),
    ("only the stream knows its media type", ("append_to_stream",), "invalid_request", "JSON"),
    ("an append has a body or closes", ("append_to_stream",), "invalid_request", "does not close the stream"),
    ("a publish has one way to be recognized", ("publish_records",), "invalid_request", "not by both"),
    ("headers of one record mean nothing for a batch", ("publish_records",), "unknown_field", "does not apply to a batch"),
]


# What schemathesis calls its findings: `st explain <code>`.
EVENT_VIOLATES_SCHEMA, INVALID_ACCEPTED, VALID_REJECTED, ALLOW_DIFFERS = "ST108", "ST201", "ST202", "ST205"


@schemathesis.hook
def filter_failure(context, failure, case, response) -> bool:
    if failure.code == EVENT_VIOLATES_SCHEMA:
        # The schema is of the whole text; what is in the events is looked at below.
        return False
    if failure.code == INVALID_ACCEPTED:
        # Whoever passes a request on may add headers to it.
        return "in header - object with unexpected properties" not in failure.message
    if failure.code == ALLOW_DIFFERS:
        # OpenAPI has no word for CONNECT, by which HTTP/2 opens a WebSocket.
        return failure.missing_methods != [] or failure.undocumented_methods != ["CONNECT"]
    if failure.code != VALID_REJECTED:
        return True
    problem = json.loads(response.content)
    operation = case.operation.definition.raw["operationId"]
    return not any(
        (not operations or operation in operations) and code == problem["code"] and detail in problem["detail"]
        for _, operations, code, detail in DELIBERATE
    )


@schemathesis.hook
def before_load_schema(context, raw_schema) -> None:
    publish = raw_schema["paths"]["/v1/topics/{topic}/records"]["post"]["requestBody"]["content"]
    # An example of lines is text, and where a strategy makes the bodies an example must be bytes.
    del publish[NDJSON]["example"]
    # Any type is a payload, but those that mean a batch; they would be taken for it with any content.
    del publish["*/*"]
    for method in "put", "post":
        del raw_schema["paths"]["/v1/streams/{path}"][method]["requestBody"]["content"]["*/*"]


@schemathesis.hook
def filter_path_parameters(context, path_parameters) -> bool:
    """Who saws off the branch he sits on learns nothing more: the tenant and the key of this run stay."""
    return not {os.environ["TENANT"], os.environ["KEY"].split("_")[1]} & set(map(str, (path_parameters or {}).values()))


@schemathesis.check
def events_have_their_form(ctx, response, case) -> None:
    """The data of each event is a `Record`, or a `Control` of the event's name."""
    if not response.headers.get("content-type", [""])[0].startswith(EVENTS):
        return
    whole = response.content.decode().rpartition("\n\n")[0]
    is_value = "format=value" in (response.request.url or "")
    for event in whole.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if re.match(r"[a-z]+: ", line))
        if "data" not in fields:
            continue
        name = fields.get("event", "message")
        if name in ("record", "message"):
            if not is_value:
                form("Record", case).validate(json.loads(fields["data"]))
            continue
        control = json.loads(fields["data"])
        form("Control", case).validate(control)
        assert control["control"] == name, f"the event {name} has the data of {control['control']}"
        assert "id" in fields, f"the event {name} has no cursor"


def form(name: str, case):
    document = case.operation.schema.raw_schema
    return jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


@schemathesis.deserializer(STORED)
def stored_batches(ctx, response):
    """Its schema is that of a string; the frames are checked by tests of their own."""
    return response.content.decode("latin-1")


def a_stored_batch() -> bytes:
    """What a reader gets may be published as it is."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url, key = f"{os.environ['PLINTH_URL']}/v1/topics/contract.source/records", f"Bearer {os.environ['KEY']}"
    post = urllib.request.Request(url, b"x", {"Authorization": key, "Content-Type": "text/plain"})
    opener.open(post, timeout=30).close()
    get = urllib.request.Request(f"{url}?from=earliest", headers={"Authorization": key, "Accept": STORED})
    with opener.open(get, timeout=30) as answer:
        return answer.read()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
lines = st.lists(values.map(json.dumps), min_size=1, max_size=5).map(lambda all: "\n".join(all).encode())
schemathesis.openapi.media_type(NDJSON, lines)
schemathesis.openapi.media_type(STORED, st.just(a_stored_batch()))


@schemathesis.serializer(BATCH)
def batch(ctx, value):
    return {"data": json.dumps(value).encode()}
