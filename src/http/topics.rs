//! Topics: create or ensure, view, change, delete, list.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use plinth_api::ListPage;
use plinth_api::topics::{Topic, TopicName, TopicPatch, TopicRequest, TrimPlace, Trimmed};

use super::convert;
use super::error::ApiError;
use super::extract::{self, Authed, Name, Params};
use super::front::Front;
use crate::auth::Action;
use crate::broker::Before;

/// Create a topic, or make sure that it is there with these settings.
///
/// What is left out is not compared: a topic that exists with other settings than the given ones answers 409.
#[utoipa::path(
    put,
    path = "/v1/topics/{topic}",
    operation_id = "ensure_topic",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The name; a `/` in it is written `%2F`")),
    request_body(content = TopicRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "The topic was made", body = Topic),
        (status = 200, description = "The topic was there with these settings", body = Topic),
    )
)]
pub(super) async fn ensure(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let topic = caller.authorize(Action::Manage, &name)?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let wanted = extract::optional_json::<TopicRequest>(&front, &parts, body).await?.unwrap_or_default();
    let (view, made) = front.broker.ensure_topic(&topic, convert::topic_settings(&wanted)?).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok(convert::json(status, &convert::topic(&view, true)))
}

/// View a topic with the bounds of its partitions.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}",
    operation_id = "view_topic",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The name; a `/` in it is written `%2F`")),
    responses((status = 200, description = "The topic", body = Topic))
)]
pub(super) async fn view(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let topic = caller.authorize(Action::View, &name)?;
    extract::no_params(&request.into_parts().0)?;
    let view = front.broker.topic(&topic).await?;
    Ok(convert::json(StatusCode::OK, &convert::topic(&view, true)))
}

/// Change settings of a topic; what is left out stays as it is.
#[utoipa::path(
    patch,
    path = "/v1/topics/{topic}",
    operation_id = "change_topic",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The name; a `/` in it is written `%2F`")),
    request_body(content = TopicPatch, content_type = "application/json"),
    responses((status = 200, description = "The topic as it is now", body = Topic))
)]
pub(super) async fn change(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let topic = caller.authorize(Action::Manage, &name)?;
    let (parts, body) = request.into_parts();
    extract::no_params(&parts)?;
    let patch: TopicPatch = extract::json(&front, &parts, body).await?;
    let view = front.broker.change_topic(&topic, convert::topic_patch(patch)?).await?;
    Ok(convert::json(StatusCode::OK, &convert::topic(&view, true)))
}

/// Delete a topic and its records. A topic of the same name that is made later starts at offset 0.
#[utoipa::path(
    delete,
    path = "/v1/topics/{topic}",
    operation_id = "delete_topic",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The name; a `/` in it is written `%2F`")),
    responses((status = 204, description = "The topic is deleted"))
)]
pub(super) async fn remove(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let topic = caller.authorize(Action::Manage, &name)?;
    extract::no_params(&request.into_parts().0)?;
    front.broker.delete_topic(&topic).await?;
    Ok(convert::no_content())
}

/// Delete the records before a place, for ever.
///
/// Nothing happens in a partition that has no record before it. A reader whose place is among them gets 410 for a page, and a
/// `gap` with the reason `trimmed` on a stream. All partitions are trimmed, or none.
#[utoipa::path(
    delete,
    path = "/v1/topics/{topic}/records",
    operation_id = "trim_records",
    tag = "records",
    params(
        ("topic" = TopicName, Path, description = "The name; a `/` in it is written `%2F`"),
        ("before" = TrimPlace, Query, description = "The first record that stays: an offset of one partition, \
            `time:<RFC 3339>`, or `latest` for none"),
        ("partition" = Option<u32>, Query, maximum = 1023, description = "Only this partition; default all"),
    ),
    responses((status = 200, description = "The bounds after it", body = Trimmed))
)]
pub(super) async fn trim(
    State(front): State<Front>,
    Authed(caller): Authed,
    Name(name): Name,
    request: Request,
) -> Result<Response, ApiError> {
    let topic = caller.authorize(Action::Manage, &name)?;
    let mut params = Params::parse(request.uri().query());
    let before = params.take("before")?;
    let partition = params.take_parsed("partition")?;
    params.finish()?;
    let before = before.ok_or_else(|| ApiError::invalid("the query parameter `before` is missing"))?;
    let trimmed = front.broker.trim(&topic, before.parse::<Before>()?, partition).await?;
    let bounds = trimmed.partitions.iter().map(|(index, bounds)| convert::partition_bounds(*index, bounds)).collect();
    Ok(convert::json(StatusCode::OK, &Trimmed { topic: trimmed.topic.to_string(), partition_bounds: bounds }))
}

/// List the topics that the credential may know of, by name.
///
/// A page whose topics have more than 10,000 partitions together ends before that, with fewer items than `limit` and a
/// `next_cursor`.
#[utoipa::path(
    get,
    path = "/v1/topics",
    operation_id = "list_topics",
    tag = "topics",
    params(
        ("prefix" = Option<String>, Query, description = "Only names that begin so"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items of the page; default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "One page", body = ListPage<Topic>))
)]
pub(super) async fn list(
    State(front): State<Front>,
    Authed(caller): Authed,
    request: Request,
) -> Result<Response, ApiError> {
    caller.inside()?;
    let page = front.broker.list_topics(&caller, convert::topics_request(request.uri().query())?).await?;
    let topics = page.topics.iter().map(|view| convert::topic(view, false)).collect();
    Ok(convert::json(StatusCode::OK, &convert::list_page(topics, page.more, |topic: &Topic| &topic.name)))
}
